"""HmacGatewayMiddleware stands in MIDDLEWARE, once, where nothing before it answers or reads bodies.

Imports the middleware and the classes that MIDDLEWARE names, as Django will. Each order that is refused was tried:
tests/checks/test_middleware.py shows what happens in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.utils.module_loading import import_string

from ..middleware import HmacGatewayMiddleware
from . import protect
from .common import value
from .policies import Placed, signed
from .values import readable

_NAME: Final = "hmac_gateway.middleware.HmacGatewayMiddleware"
#: Using one of these consumes the stream of a form with files, and leaves no body to compare with its digest.
_READING: Final = frozenset({"POST", "FILES", "_load_post_and_files", "read"})
_ENTRIES: Final = ("__call__", "__acall__", "process_request")


class Item(NamedTuple):
    """An entry of MIDDLEWARE and what it names."""

    name: str
    made: Any

    def like(self, *classes: type) -> bool:
        """Whether it is one of these classes or derives from it, or is another library's of the same name."""
        if not isinstance(self.made, type):
            return False
        return issubclass(self.made, classes) or bool(
            {base.__name__ for base in self.made.__mro__} & {kind.__name__ for kind in classes}
        )


def items() -> list[Item]:
    """What MIDDLEWARE names, in its order; Django itself complains about what cannot be imported."""
    found = []
    for name in settings.MIDDLEWARE or ():
        try:
            found.append(Item(name, import_string(name)))
        except Exception:
            found.append(Item(str(name), None))
    return found


def places(chain: list[Item]) -> list[int]:
    """Where ours stands, what a site derives from it, or a function that makes one."""
    name = HmacGatewayMiddleware.__name__
    return [
        at
        for at, item in enumerate(chain)
        if item.like(HmacGatewayMiddleware)
        or (isinstance(item.made, FunctionType) and name in _names(item.made.__code__))
    ]


def check_middleware(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Missing, twice, behind what answers or reads, before what stores answers."""
    chain = items()
    ours = places(chain)
    if not ours:
        if readable("PROTECT") and value("PROTECT"):
            yield Error(
                "HMAC_GATEWAY['PROTECT'] protects nothing: HmacGatewayMiddleware is not in MIDDLEWARE.",
                hint=f"Add '{_NAME}' right after SecurityMiddleware.",
                id="hmac_gateway.E011",
            )
        return
    if len(ours) > 1:
        yield Warning(
            "HmacGatewayMiddleware is in MIDDLEWARE more than once: requests are checked and counted each time.",
            hint=f"Keep the first, {chain[ours[0]].name!r}.",
            id="hmac_gateway.W023",
        )
    for item in chain[: ours[0]]:
        if item.like(FetchFromCacheMiddleware):
            yield Error(
                f"{item.name} stands before HmacGatewayMiddleware: it answers from the cache before anybody asks for a "
                "credential.",
                hint="Order: UpdateCacheMiddleware, HmacGatewayMiddleware, …, FetchFromCacheMiddleware.",
                id="hmac_gateway.E012",
            )
    for item in chain[ours[-1] + 1 :]:
        if item.like(UpdateCacheMiddleware):
            yield Error(
                f"{item.name} stands behind HmacGatewayMiddleware: it keeps answers before they are marked as private, "
                "so that one consumer may get another's.",
                hint="Order: UpdateCacheMiddleware, HmacGatewayMiddleware, …, FetchFromCacheMiddleware.",
                id="hmac_gateway.E013",
            )
    for item in chain[ours[0] + 1 :]:
        # django-cors-headers is the one that most sites have; it need not be installed.
        if isinstance(item.made, type) and "CorsMiddleware" in {base.__name__ for base in item.made.__mro__}:
            yield Warning(
                f"{item.name} stands behind HmacGatewayMiddleware: preflight requests of browsers, which are not "
                "signed, are refused at protected addresses.",
                hint="Put it before HmacGatewayMiddleware.",
                id="hmac_gateway.W025",
            )
    if bodies_are_checked(protect.placed()):
        yield from readers(chain)


def bodies_are_checked(found: Iterable[Placed]) -> bool:
    """Whether one of these policies compares bodies with their digest."""
    return any(policy.validate_body for _, policy in signed(found))


def readers(chain: list[Item]) -> Iterator[CheckMessage]:
    """What stands before ours and reads bodies."""
    for item in chain[: min(places(chain), default=0)]:
        if reads_bodies(item.made):
            yield Warning(
                f"{item.name} stands before HmacGatewayMiddleware and reads forms or the stream: bodies that it has "
                "read cannot be compared with their digest.",
                hint=f"Put it behind '{_NAME}', which leaves bodies unread.",
                id="hmac_gateway.W008",
            )


def reads_bodies(made: Any) -> bool:
    """Whether a middleware's code uses what consumes a body, in the parts that run before the next one does.

    `request.body` is no such thing, since Django keeps what it returns; nor is `process_view`, which runs after all.
    """
    if isinstance(made, FunctionType):
        return bool(_names(made.__code__) & _READING)
    if not isinstance(made, type) or made.__module__.startswith("django."):
        return False
    seen: set[str] = set()
    left = [name for name in _ENTRIES if hasattr(made, name)]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        method: Callable[..., Any] | None = getattr(made, name, None)
        if isinstance(method, FunctionType):
            used = _names(method.__code__)
            if used & _READING:
                return True
            left += [other for other in used if isinstance(getattr(made, other, None), FunctionType)]
    return False


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found
