"""Addresses of the standalone console: admin, admin APIs and their description."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.urls.resolvers import URLPattern, URLResolver
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

admin.site.site_header = "HMAC gateway"
admin.site.site_title = "HMAC gateway"
admin.site.index_title = "Configuration"
# The console is the whole site: there is nothing else to view.
admin.site.site_url = None

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    # Open: they say what the product can do, and nothing of what is configured.
    re_path(r"^api/schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^api/docs/?$", SpectacularSwaggerSplitView.as_view(), name="docs"),
    re_path(r"^apisix/admin(?:/|$)", include("hmac_gateway.admin_api.urls")),
    re_path(r"^kong(?:/|$)", include("hmac_gateway.admin_api.kong_urls")),
]
