"""Views that a site names in its URLconf. `ProxyView`: see `views` of the proxy app, wherever that app lies.

    from hmac_gateway.views import ProxyView

One import for a checkout, where the app is `proxy`, for the wheel, where it is `hmac_gateway.proxy`, and for a copy
elsewhere. Imported by URLconfs, after the apps were loaded; raises LookupError where the app is not installed.
"""

from importlib import import_module
from typing import Any

from django.apps import apps

ProxyView: Any = import_module(f"{apps.get_app_config('hmac_proxy').name}.views").ProxyView
