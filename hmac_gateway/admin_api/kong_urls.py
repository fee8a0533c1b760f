"""Addresses of Kong's admin API: one view takes all of them, with or without a slash at the end."""

from django.urls import re_path

from .kong import KongView

urlpatterns = [re_path(r"^(?P<rest>(?s:.*))\Z", KongView.as_view())]
