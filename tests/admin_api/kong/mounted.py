"""Addresses of a site that has the API at a place of its own."""

from django.urls import include, path

urlpatterns = [path("ops/gateway/", include("hmac_gateway.admin_api.kong_urls"))]
