"""Addresses of the standalone console: admin, admin APIs, health."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.urls.resolvers import URLPattern, URLResolver
from django.views.generic import RedirectView

admin.site.site_header = "HMAC gateway"
admin.site.site_title = "HMAC gateway"
admin.site.index_title = "Configuration"
# The console is the whole site: there is nothing else to view.
admin.site.site_url = None

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    re_path(r"^apisix/admin(?:/|$)", include("hmac_gateway.admin_api.urls")),
]
