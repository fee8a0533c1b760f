"""Django REST framework: `HmacAuthentication`, `HasConsumer`, `ConsumerThrottle`.

    class Orders(APIView):
        authentication_classes = [HmacAuthentication]
        permission_classes = [HasConsumer.in_group("partners")]
        hmac_policy = {"config": {"signed_headers": ["@request-target", "date"]}}

Used by a site's own views, with the middleware or without it. Imports `site`, `adapters.django` and DRF; refusals
keep DRF's envelope, `{"detail", "code"}`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from types import new_class
from typing import Any, ClassVar, Final, TypeVar, cast

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle

from . import site
from .adapters.django import NO_STORE, admit, unreadable, varies_on
from .adapters.heads import Access, access_of
from .adapters.page_cache import keep_unstored
from .conf import conf
from .core.credential import Consumer, Credential
from .core.errors import Rejected
from .core.identity import NOBODY, Carrier, Identity
from .core.reasons import Reason
from .core.words import answer_text, row
from .gate import Step

#: Refusals that say no more than: nothing of mine was presented.
_NOT_MINE: Final = frozenset({Reason.MISSING, Reason.WRONG_SCHEME})
_DEFAULT: Final = site.Policy({})


class Refused(APIException):
    """A refusal that is not 401: a body too large, a path that can be read in two ways, a store that is away."""

    def __init__(self, detail: Any, status: int) -> None:
        super().__init__(detail, detail["code"])
        self.status_code = status


class ConsumerUser:
    """What `request.user` is for a consumer without a Django user. Authenticated, without permissions.

    `pk` is a text that DRF's own throttles can count by; no row of the user table has it.
    """

    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, consumer: Consumer, anonymous: bool = False) -> None:
        self.consumer = consumer
        self.is_anonymous = anonymous
        self.is_authenticated = not anonymous

    @property
    def username(self) -> str:
        """The consumer's name."""
        return self.consumer.username

    @property
    def pk(self) -> str:
        """Who this is among users and consumers."""
        return f"consumer:{self.consumer.id}"

    id = pk

    def get_username(self) -> str:
        """The consumer's name."""
        return self.username

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Permissions belong to Django users: link one to the consumer."""
        return False

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        """See `has_perm`."""
        return not perms

    def has_module_perms(self, app_label: str) -> bool:
        """See `has_perm`."""
        return False

    @property
    def groups(self) -> Any:
        """Django's groups, of which it has none, as AnonymousUser has none; `consumer.groups` are others."""
        from django.contrib.auth.models import Group  # not every site has that app

        return Group._default_manager.none()

    @property
    def user_permissions(self) -> Any:
        """None, as a query set like that of a user."""
        from django.contrib.auth.models import Permission

        return Permission._default_manager.none()

    def get_all_permissions(self, obj: Any = None) -> set[str]:
        """See `has_perm`."""
        return set()

    get_user_permissions = get_group_permissions = get_all_permissions

    def __str__(self) -> str:
        return self.username

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConsumerUser) and other.pk == self.pk

    def __hash__(self) -> int:
        return hash(self.pk)


class HmacAuthentication(BaseAuthentication):
    """Authenticates by a credential of the gateway.

    The policy is the view's `hmac_policy`, else the class's `policy`: `{"plugin", "config", "dialect"}`, as it would
    stand on a route; without either it is hmac-auth with its defaults, or whatever the middleware has verified already.
    Nothing is verified twice, and no replay mark is stored twice for one request. `request.user` becomes the Django
    user linked to the consumer, loaded when it is looked at, else a `ConsumerUser`; `request.auth` the Credential.

    None when nothing of this method was presented, so that other classes get their turn. Raises
    AuthenticationFailed (401), `Refused` with 400, 411, 413 or 503, or PermissionDenied where Django's own CSRF check
    fails: it is made for credentials that browsers send by themselves (basic-auth, cookies) or are led to (links).
    """

    policy: ClassVar[Mapping[str, Any] | None] = None

    def authenticate(self, request: Request) -> tuple[Any, Credential | None] | None:
        http, view = request._request, _view(request)
        step, own = _step(self, view)
        access = access_of(http)
        if step in access.verified or (not own and access.verified):
            return _found(request, view, access, step, access.identity)
        snapshot = site.snapshot()
        refused = Rejected(Reason.NOT_CONFIGURED, dialect=conf.dialect) if snapshot is None else unreadable(http)
        if refused is None and snapshot is not None:
            outcome = admit(http, (step,), snapshot)
            if not isinstance(outcome, Rejected):
                site.finished(access, 200)
                keep_unstored(http, request)
                return _found(request, view, access, step, outcome.identity)
            if outcome.reason in _NOT_MINE:
                _mark(view, access, step, stored=False)
                return None
            refused = outcome
        assert refused is not None  # else there was a snapshot to ask
        _mark(view, access, step, stored=True)
        access.asked = {"by": "HmacAuthentication", "policy": _given(self, view) or {}}
        raise _exception(http, refused)

    def authenticate_header(self, request: Request) -> str:
        """The challenge of the view's policy; DRF takes the first class's, and answers 403 where there is none."""
        return _step(self, _view(request))[0].common.challenge or "hmac"


def _found(
    request: Request, view: Any, access: Access, step: Step, identity: Identity
) -> tuple[Any, Credential | None]:
    _mark(view, access, step, stored=True, passed=True)
    consumer = identity.consumer
    assert consumer is not None  # a step that held names one
    if not identity.csrf_exempt and not identity.anonymous:
        SessionAuthentication().enforce_csrf(request)
    if consumer.user_id is not None and not identity.anonymous:
        return _lazily(consumer), identity.credential
    return ConsumerUser(consumer, identity.anonymous), identity.credential


def _lazily(consumer: Consumer) -> Any:
    return SimpleLazyObject(lambda: _linked_user(consumer))


def _linked_user(consumer: Consumer) -> Any:
    model: Any = get_user_model()
    user = model._default_manager.filter(pk=consumer.user_id).first()
    if user is None or not user.is_active:
        raise AuthenticationFailed()
    return user


def _view(request: Request) -> Any:
    return (request.parser_context or {}).get("view")


T = TypeVar("T")
_policies: Final[dict[int, tuple[Any, site.Policy]]] = {}


def _step(authenticator: HmacAuthentication, view: Any) -> tuple[Step, bool]:
    """The step to pass, and whether somebody asked for it explicitly."""
    given = _given(authenticator, view)
    if given is None:
        return _DEFAULT.step(), False
    kept = _policies.get(id(given))
    if kept is None or kept[0] is not given:
        if not isinstance(given, Mapping):
            raise ImproperlyConfigured(f"hmac_policy is {type(given).__name__}; allowed: a dict of plugin and config.")
        if len(_policies) >= 1000:
            _policies.clear()  # a policy made anew for each request must not fill the memory
        kept = _policies[id(given)] = (given, site.Policy(given))
    return kept[1].step(), True


def _given(authenticator: HmacAuthentication, view: Any) -> Any:
    given = getattr(view, "hmac_policy", None)
    return authenticator.policy if given is None else given


def _mark(view: Any, access: Access, step: Step, *, stored: bool, passed: bool = False) -> None:
    """Have DRF put Vary, and no-store where a credential mattered, on the view's answer; the id on a refusal."""
    headers = getattr(view, "headers", None)
    if not isinstance(headers, dict):
        return
    headers["Vary"] = _varied(headers.get("Vary", ""), step.common.carriers)
    if stored:
        headers["Cache-Control"] = NO_STORE
    if not passed:
        headers["X-Request-Id"] = access.request_id
    if access.headers:
        headers.update(access.headers)


@lru_cache(maxsize=256)
def _varied(vary: str, carriers: frozenset[Carrier]) -> str:
    """What DRF varies on already, and the headers that may carry a credential."""
    names = [name.strip() for name in vary.split(",")] if vary else []
    return ", ".join(dict.fromkeys([*names, *varies_on(carriers)]))


def _exception(request: HttpRequest, rejected: Rejected) -> APIException:
    status = row(rejected).status
    site.finished(access_of(request), status, rejected)
    code = str(rejected.reason) if rejected.expose or status != 401 else AuthenticationFailed.default_code
    detail = {"detail": answer_text(rejected), "code": code}
    return AuthenticationFailed(cast(Any, detail), code) if status == 401 else Refused(detail, status)


class HasConsumer(BasePermission):
    """Lets only consumers in, not anonymous ones. `HasConsumer.named(…)`, `.in_group(…)` and `.labelled(…)` narrow it.

    Each gives a class for `permission_classes`; they combine with `&`, `|` and `~` as DRF's own do.
    """

    names: ClassVar[frozenset[str]] = frozenset()
    groups: ClassVar[frozenset[str]] = frozenset()
    labels: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def named(cls, *names: str) -> type[HasConsumer]:
        """Consumers with one of these user names. At least one, or ImproperlyConfigured."""
        return _narrowed(cls, names=frozenset(_some(names)))

    @classmethod
    def in_group(cls, *groups: str) -> type[HasConsumer]:
        """Members of one of these ACL groups, or of the consumer group. At least one, or ImproperlyConfigured."""
        return _narrowed(cls, groups=frozenset(_some(groups)))

    @classmethod
    def labelled(cls, **labels: str) -> type[HasConsumer]:
        """Consumers, or credentials, that carry all these labels. At least one, or ImproperlyConfigured."""
        return _narrowed(cls, labels=_some(labels))

    def has_permission(self, request: Any, view: Any) -> bool:
        """Whether the caller is such a consumer."""
        identity = _identity(request)
        consumer = identity.consumer
        if consumer is None or identity.anonymous:
            return False
        if self.names and consumer.username not in self.names:
            return False
        if self.groups and not self.groups & {*consumer.groups, consumer.group_id}:
            return False
        own = {} if identity.credential is None else identity.credential.labels
        return all(consumer.labels.get(key) == text or own.get(key) == text for key, text in self.labels.items())


def _narrowed(base: type[HasConsumer], **attributes: Any) -> type[HasConsumer]:
    return cast("type[HasConsumer]", new_class(base.__name__, (base,), {}, lambda body: body.update(attributes)))


def _some(given: T) -> T:
    if not given:
        # An empty list of who may come in must not let everybody in.
        raise ImproperlyConfigured("HasConsumer: nothing was given; allowed: at least one name, group or label.")
    return given


def _identity(request: Any) -> Identity:
    """Who calls, by the view's own authentication; by the middleware's where the view has none of ours."""
    user = request.user  # authentication is lazy
    identity: Identity = getattr(request, "hmac", NOBODY)
    if identity.consumer is None:
        return NOBODY
    if any(isinstance(found, HmacAuthentication) for found in request.authenticators or ()):
        if not isinstance(request.successful_authenticator, HmacAuthentication):
            # What the middleware was satisfied with is not what this view asks for.
            return NOBODY
        if identity.consumer.user_id is not None and not identity.anonymous:
            user.is_active  # noqa: B018 - loads the linked user, and refuses one that is gone or inactive
    elif not identity.csrf_exempt and not identity.anonymous:
        # DRF exempts its views from Django's check, and no class of ours has made it.
        SessionAuthentication().enforce_csrf(request)
    return identity


class ConsumerThrottle(BaseThrottle):
    """So many requests of one consumer per second, minute, hour or day, in fixed windows.

    `rate` as DRF writes it (`100/min`), or taken from DEFAULT_THROTTLE_RATES by `scope`. Counts in Django's default
    cache in one atomic step, so that requests at the same moment are all counted; the cache must be shared by the
    site's processes. Callers that are no consumers are not counted. A cache that is away: 503.
    """

    scope = "consumer"
    rate: ClassVar[str | None] = None

    def __init__(self) -> None:
        rate = self.rate or cast(Any, api_settings.DEFAULT_THROTTLE_RATES).get(self.scope)
        if not rate:
            raise ImproperlyConfigured(
                f"{type(self).__name__} has no rate: set its `rate`, or DEFAULT_THROTTLE_RATES[{self.scope!r}]."
            )
        number, _, unit = rate.partition("/")
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(unit[:1])
        if not number.isdigit() or seconds is None:
            raise ImproperlyConfigured(f"{rate!r} is no rate; allowed: a number, /, and sec, min, hour or day.")
        self.number, self.seconds = int(number), seconds
        self._left: float | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count this request; False when its consumer has had enough in this window."""
        consumer = _identity(request).consumer
        if consumer is None:
            return True
        now = time.time()
        window = int(now // self.seconds)
        key = f"hmacgw:throttle:{self.scope}:{consumer.id}:{self.seconds}:{window}"
        try:
            # Made before it is counted up: `incr` needs a value, and only `add` is sure to be the first.
            cache.add(key, 0, self.seconds * 2)
            count = cache.incr(key)
        except Exception as error:
            if isinstance(error, ImproperlyConfigured):
                raise
            site.logger.error("the cache that ConsumerThrottle counts in failed: %s", type(error).__name__)
            raise Refused({"detail": "rate limiting is not available", "code": "throttle_unavailable"}, 503) from None
        self._left = (window + 1) * self.seconds - now
        return count <= self.number

    def wait(self) -> float | None:
        """Seconds until the next window."""
        return self._left


if find_spec("drf_spectacular") is not None:
    from . import drf_schema  # noqa: F401 - registers itself
