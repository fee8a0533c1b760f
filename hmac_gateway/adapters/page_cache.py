"""Keeps Django's page cache from storing what a decorator or a DRF class has let through.

Used by `decorators` and `drf`. The middleware needs none of it: it stands in front of FetchFromCacheMiddleware, and so
asks everybody for a credential before a stored answer is given.
"""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest

#: Django's page cache notes on the request whether its answer is to be stored.
_NOTE: Final = "_cache_update_cache"


class _Unstored:
    _cache_update_cache = property(lambda self: False, lambda self, value: None)


_kinds: Final[dict[type, type]] = {}


def _unstored(kind: type) -> type:
    found = _kinds.get(kind)
    if found is None:
        found = _kinds[kind] = type(kind.__name__, (_Unstored, kind), {"__module__": kind.__module__})
    return found


def keep_unstored(request: HttpRequest, *wrappers: Any) -> None:
    """From here on `cache_page` stores no answer to this request, if a page cache was asked on its way here.

    A view's own `cache_page` and FetchFromCacheMiddleware share their keys: what the one stores behind a check, the
    other gives away before it. The answer's Cache-Control comes too late for that. `wrappers` are other objects that
    views know the request by.
    """
    if _NOTE in request.__dict__:
        for seen in (request, *wrappers):
            if not isinstance(seen, _Unstored):
                seen.__class__ = _unstored(type(seen))
