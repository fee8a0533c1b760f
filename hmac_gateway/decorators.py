"""`@hmac_required`: a credential for one plain view, sync or async.

Used by a site's own views, with the middleware or without it. Imports `site` and `adapters.django`; for DRF views
there is `drf.HmacAuthentication`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.views.generic import View

from . import site
from .adapters.django import aadmit, acurrent, admit, protect_response, refusal, unreadable
from .adapters.heads import access_of
from .adapters.page_cache import keep_unstored
from .conf import conf
from .core.errors import Rejected
from .core.reasons import Reason
from .gate import Step
from .snapshot import Snapshot

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def hmac_required(view: Function) -> Function: ...


@overload
def hmac_required(
    *, plugin: str = "hmac-auth", config: Mapping[str, Any] | None = None, dialect: str = "apisix"
) -> Callable[[Function], Function]: ...


def hmac_required(
    view: Function | None = None,
    *,
    plugin: str = "hmac-auth",
    config: Mapping[str, Any] | None = None,
    dialect: str = "apisix",
) -> Function | Callable[[Function], Function]:
    """Let only requests through that pass `plugin` with `config` (as it would stand on a route); sets `request.hmac`.

    With arguments, as in `@hmac_required(config={"signed_headers": ["@request-target", "date"]})`, or without.
    Raises ConfigError where it is written, when the configuration is wrong. The view is exempt from CSRF and from
    LoginRequiredMiddleware; Django's own CSRF check runs here where a browser may have been made to send the request
    (basic-auth, cookies, anonymous consumers). A request that the middleware let through by the same configuration
    is not verified twice.
    """
    given = {"plugin": plugin, "config": dict(config or {}), "dialect": dialect}
    policy = site.Policy(given)

    def decorate(inner: Function) -> Function:
        wrapper: Any
        if _is_async(inner):

            @wraps(inner)
            async def wrapper(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
                step, http = policy.step(), _received(request)
                outcome = _before(request, await acurrent(), step, given)
                if isinstance(outcome, Snapshot):
                    outcome = _after(request, step, given, await aadmit(http, (step,), outcome))
                if outcome is None and not access_of(http).identity.csrf_exempt:
                    outcome = await sync_to_async(_csrf)(http, inner, args, kwargs)
                return outcome if outcome is not None else _done(http, step, await inner(request, *args, **kwargs))

        else:

            @wraps(inner)
            def wrapper(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
                step, http = policy.step(), _received(request)
                outcome = _before(request, site.snapshot(), step, given)
                if isinstance(outcome, Snapshot):
                    outcome = _after(request, step, given, admit(http, (step,), outcome))
                if outcome is None and not access_of(http).identity.csrf_exempt:
                    outcome = _csrf(http, inner, args, kwargs)
                return outcome if outcome is not None else _done(http, step, inner(request, *args, **kwargs))

        wrapper.csrf_exempt = True
        wrapper.login_required = False
        wrapper.hmac_policy = given  # for the debugger
        return cast(Function, wrapper)

    return decorate if view is None else decorate(view)


def _is_async(view: Any) -> bool:
    """Whether a view is to be awaited; also `dispatch` of a class-based one, as `method_decorator` hands it over.

    That is a plain method, bound to the view, which gives a coroutine where the class's handlers are async.
    """
    if iscoroutinefunction(view):
        return True
    while view is not None:
        method = getattr(view, "func", view)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, View) and method.__name__ == "dispatch":
            return bool(owner.view_is_async)
        view = getattr(view, "__wrapped__", None)  # another decorator's
    return False


def _received(request: Any) -> HttpRequest:
    """Django's own request: within a view of Django REST framework, functions and methods are given another."""
    found: HttpRequest = getattr(request, "_request", request)
    return found


def _before(
    request: Any, snapshot: Snapshot | None, step: Step, given: Mapping[str, Any]
) -> HttpResponseBase | Snapshot | None:
    """A refusal; or the directory to ask; or None, when the same was asked already."""
    http = _received(request)
    if step in access_of(http).verified:
        return None
    if snapshot is None:
        return refusal(http, Rejected(Reason.NOT_CONFIGURED, dialect=conf.dialect), (step,))
    refused = unreadable(http)
    return snapshot if refused is None else _after(request, step, given, refused)


def _after(request: Any, step: Step, given: Mapping[str, Any], outcome: Any) -> HttpResponse | None:
    http = _received(request)
    if isinstance(outcome, Rejected):
        access_of(http).asked = {"by": "@hmac_required", "policy": given}
        return refusal(http, outcome, (step,))
    keep_unstored(*dict.fromkeys((http, request)))
    return None


def _csrf(request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
    """Django's own check, which `csrf_exempt` keeps its middleware from making; None when it is passed."""
    check = CsrfViewMiddleware(lambda request: HttpResponse())
    check.process_request(request)
    return check.process_view(request, view, args, kwargs)


def _done(request: HttpRequest, step: Step, response: HttpResponseBase) -> HttpResponseBase:
    access = access_of(request)
    site.finished(access, response.status_code)
    return protect_response(access, response, (step,))
