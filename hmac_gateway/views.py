"""Views that a site names in its URLconf; they live in the proxy app, wherever that app lies.

    from hmac_gateway.views import ProxyView, auth_request_view

One import for a checkout, where the app is `proxy`, for the wheel, where it is `hmac_gateway.proxy`, and for a copy
elsewhere. Imported by URLconfs, after the apps were loaded; raises LookupError where the app is not installed.
"""

from importlib import import_module
from typing import Any

from django.apps import apps

_APP = apps.get_app_config("hmac_proxy").name

ProxyView: Any = import_module(f"{_APP}.views").ProxyView
auth_request_view: Any = import_module(f"{_APP}.auth_view").auth_request_view
