"""Addresses of APISIX's admin API, each with or without a slash at its end, so that none is redirected."""

from django.urls import re_path

from .apisix import ApisixView

view = ApisixView.as_view()

urlpatterns = [
    re_path(r"^consumers/(?P<owner>[^/]+)/credentials(?:/(?P<key>[^/]+))?/?$", view),
    re_path(r"^(?P<name>[^/]*)(?:/(?P<key>[^/]+))?(?:/(?P<path>.+?))?/?$", view),
]
