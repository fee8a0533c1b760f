"""Addresses of the site: its pages, then what partners call."""

from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import path

from consumers import api, views
from hmac_gateway.views import ProxyView

urlpatterns = [
    path("", views.front, name="front"),
    path("households/", views.households, name="households"),
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("admin/", admin.site.urls),
    # Signed: by PROTECT in the settings, by the decorator, by the DRF class, by routes of the admin.
    path("export/readings.csv", views.export),
    path("totals/", views.totals),
    path("api/readings/", api.Readings.as_view()),
    path("api/import/", api.Import.as_view()),
    path("gw/<path:path>", ProxyView.as_view()),
]
