"""Kong 0.x's `/apis` and the plugins below it, in the shapes and words of Kong 0.5. Called by the view.

All else of the admin API is today's; a plugin that is written here answers requests as Kong 0.x did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import kong_legacy_apis as apis
from . import kong_legacy_plugins as plugins
from .kong_errors import not_found

if TYPE_CHECKING:
    from .kong import Handlers


def handlers(parts: Sequence[str]) -> Handlers:
    """What can be done at an address below /apis, by method. Raises KongError 404."""
    match list(parts):
        case []:
            return {"GET": apis.list_apis, "POST": apis.create_api, "PUT": apis.put_api}
        case [key]:
            return {
                "GET": lambda ask: (200, apis.show_api(*apis.api(key))),
                "PATCH": lambda ask: apis.change_api(ask, key),
                "DELETE": lambda ask: apis.delete_api(ask, key),
            }
        case [key, "plugins"]:
            return {
                "GET": lambda ask: plugins.list_plugins(ask, key),
                "POST": lambda ask: plugins.create_plugin(ask, key),
                "PUT": lambda ask: plugins.put_plugin(ask, key),
            }
        case [key, "plugins", text]:
            return {
                "GET": lambda ask: (200, plugins.show_plugin(plugins.plugin(key, text))),
                "PATCH": lambda ask: plugins.change_plugin(ask, key, text),
                "DELETE": lambda ask: plugins.delete_plugin(ask, key, text),
            }
    raise not_found()
