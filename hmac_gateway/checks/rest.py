"""Django REST framework: the order of authenticators, policies of views, the cache that throttles count in.

Looks at REST_FRAMEWORK and at the views that the URLconf leads to; silent where `hmac_gateway.drf` is not in use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Error, Warning
from django.urls import URLPattern, get_resolver

from ..core.errors import ConfigError
from ..site import Policy
from ..stores import processes
from . import policies
from .common import shortened, told, value
from .credentials import nobody
from .policies import Placed
from .values import readable

_DEFAULTS: Final = "REST_FRAMEWORK"


class Used(NamedTuple):
    """The classes that a view (or the defaults) uses, and the policy that it sets."""

    where: str
    authenticators: tuple[Any, ...]
    throttles: tuple[Any, ...]
    policy: Any


def used() -> list[Used]:
    """The defaults, then every view that differs from them."""
    try:
        views = list(_views(get_resolver().url_patterns))
        if "hmac_gateway.drf" not in sys.modules and not _named_in_settings():
            return []
        from rest_framework.settings import api_settings

        found = [
            Used(
                _DEFAULTS,
                tuple(api_settings.DEFAULT_AUTHENTICATION_CLASSES or ()),
                tuple(api_settings.DEFAULT_THROTTLE_CLASSES or ()),
                None,
            )
        ]
    except Exception:
        # A URLconf or class that cannot be imported is for Django and DRF to tell.
        return []
    for view, given in views:

        def of(name: str, view: type = view, given: Mapping[str, Any] = given) -> Any:
            return given.get(name, getattr(view, name, None))

        # What a property says, only a request can tell.
        own = [_classes(of(name)) for name in ("authentication_classes", "throttle_classes")]
        use = Used(f"{view.__module__}.{view.__qualname__}", own[0], own[1], of("hmac_policy"))
        if use not in found:
            found.append(use)
    return found


def _classes(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, Iterable) else ()


def _named_in_settings() -> bool:
    from django.conf import settings

    return "hmac_gateway.drf" in repr(getattr(settings, "REST_FRAMEWORK", {}))


def _views(patterns: Iterable[Any]) -> Iterator[tuple[type, Mapping[str, Any]]]:
    """Classes of views, and what `as_view` or `@action` gives in place of their attributes."""
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            view = getattr(pattern.callback, "cls", None)
            if isinstance(view, type):
                yield view, getattr(pattern.callback, "initkwargs", {})
        else:
            yield from _views(pattern.url_patterns)


def check_authenticators(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Refusals get their status, and policies can be compiled and ask for enough."""
    found = used()
    if not found or not readable("PROTECT", "MAX_BODY"):
        return
    from rest_framework.authentication import BaseAuthentication

    if not value("PROTECT") and any(_ours(use) for use in found):
        yield from nobody("HmacAuthentication")
    late: list[str] = []
    placed: list[Placed] = []
    done: set[int] = set()
    for use in found:
        ours = _ours(use)
        if not ours:
            continue
        first = use.authenticators[0]
        if getattr(first, "authenticate_header", None) is BaseAuthentication.authenticate_header:
            late.append(use.where)
        for where, given in [(use.where, use.policy), *((_name(kind), kind.policy) for kind in ours)]:
            if given is None or id(given) in done or hasattr(type(given), "__get__"):
                continue
            done.add(id(given))
            outcome = _compiled(where, given)
            if isinstance(outcome, Placed):
                placed.append(outcome)
                yield from policies.misspelt(where, given)
            else:
                yield outcome
        if use.policy is None and use.where != _DEFAULTS and not value("PROTECT"):
            # Without the middleware nobody else has asked for more.
            placed += [Placed(use.where, Policy({}).step()) for kind in ours if kind.policy is None]
    if late:
        yield Warning(
            f"HmacAuthentication is not the first of the authentication classes at: {shortened(late)}. Django REST "
            "framework takes the challenge of the first class; that one has none, so refusals are answered with 403 in "
            "place of 401.",
            hint="Put HmacAuthentication first: it leaves requests without its credentials to the others.",
            id="hmac_gateway.W020",
        )
    yield from policies.weak(placed)
    yield from policies.targets(placed)
    yield from policies.forgotten(placed)
    yield from policies.unheld(placed)


def _ours(use: Used) -> list[Any]:
    from ..drf import HmacAuthentication

    return [kind for kind in use.authenticators if isinstance(kind, type) and issubclass(kind, HmacAuthentication)]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _compiled(where: str, given: Any) -> Placed | CheckMessage:
    text = f"{type(given).__name__} was given; allowed: a dict of plugin, config and dialect."
    if isinstance(given, Mapping):
        try:
            return Placed(where, Policy(given).step())
        except ConfigError as error:
            text = told(error)
        except TypeError:
            text = "it cannot be used."
    return Error(
        f"The policy of {where} is wrong: {text}",
        hint="Write {'plugin': 'hmac-auth', 'config': {…}}, as it would stand on a route.",
        id="hmac_gateway.E014",
    )


def check_throttles(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """ConsumerThrottle counts where all processes see it, and where counting up is one step."""
    found = used()
    if not found or not readable("WORKERS"):
        return
    from ..drf import ConsumerThrottle

    where = [
        use.where
        for use in found
        if any(isinstance(kind, type) and issubclass(kind, ConsumerThrottle) for kind in use.throttles)
    ]
    if not where:
        return
    try:
        cache = caches[DEFAULT_CACHE_ALIAS]
    except Exception:
        return  # Django itself tells what is wrong with CACHES
    if isinstance(cache, DummyCache):
        why = "cannot count: every request is answered with 503"
    elif processes() > 1 and isinstance(cache, LocMemCache):
        why = f"is not shared by {processes()} processes: each lets the whole rate through"
    elif processes() > 1 and isinstance(cache, FileBasedCache | DatabaseCache):
        why = f"does not count in one step: with {processes()} processes more than the rate gets through"
    else:
        return
    yield Warning(
        f"CACHES['default'] is {type(cache).__name__}, which {why}. ConsumerThrottle is used at: {shortened(where)}.",
        hint="Use Redis or Memcached for CACHES['default'].",
        id="hmac_gateway.W016",
    )
