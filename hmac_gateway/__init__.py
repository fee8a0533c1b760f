"""hmac_gateway: a Django-native API gateway and request-authentication kit.

Imports no Django, so that it can be imported from a settings module.
"""

from importlib.util import find_spec

__version__ = "0.1.0"

# In the wheel the two apps lie inside this package; in a checkout they are its neighbours.
_INSIDE = find_spec("hmac_gateway.consumers") is not None

#: What a site adds to INSTALLED_APPS.
EMBED: list[str] = (
    ["hmac_gateway", "hmac_gateway.consumers", "hmac_gateway.proxy"]
    if _INSIDE
    else ["hmac_gateway", "consumers", "proxy"]
)
