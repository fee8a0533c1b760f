"""Addresses of APISIX's admin API, each with or without a slash at its end, so that none is redirected."""

from django.urls import re_path

from .apisix import (
    AbsentView,
    ApisixView,
    ConfigsView,
    PluginListView,
    PluginsView,
    ReloadView,
    RootView,
    SchemaView,
    ValidateView,
)
from .apisix_absent import ABSENT

view = ApisixView.as_view()

urlpatterns = [
    re_path(r"^$", RootView.as_view()),
    re_path(r"^plugins/?$", PluginsView.as_view()),
    re_path(r"^plugins/list/?$", PluginListView.as_view()),
    re_path(r"^plugins/reload/?$", ReloadView.as_view()),
    re_path(r"^(?:schema/)?plugins/(?P<plugin>[^/]+)/?$", SchemaView.as_view()),
    re_path(r"^schema/validate/(?P<name>[^/]+)/?$", ValidateView.as_view()),
    re_path(r"^schema/(?P<kind>[^/]+)/?$", SchemaView.as_view()),
    re_path(r"^configs/validate/?$", ConfigsView.as_view()),
    re_path(rf"^(?P<name>{'|'.join(ABSENT)})(?:/(?P<key>(?s:.+?)))?/?$", AbsentView.as_view()),
    re_path(r"^consumers/(?P<owner>[^/]+)/credentials(?:/(?P<key>[^/]+))?/?$", view),
    re_path(r"^(?P<name>[^/]*)(?:/(?P<key>[^/]+))?(?:/(?P<path>(?s:.+?)))?/?$", view),
]
