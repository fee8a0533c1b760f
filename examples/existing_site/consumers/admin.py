from django.contrib import admin

from .models import Household, Reading

admin.site.register([Household, Reading])
