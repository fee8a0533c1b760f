"""HmacGatewayMiddleware in MIDDLEWARE: every order that a check speaks of, and what happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.request import RawPostDataException
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
from django.test import Client, override_settings
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page

from hmac_gateway.checks.middleware import reads_bodies
from hmac_gateway.middleware import HmacGatewayMiddleware
from tests.checks.test_protect import entry, protecting
from tests.settings import HMAC_GATEWAY, MIDDLEWARE
from tests.support.checks import found
from tests.support.served import digest_of, signed

HERE = "tests.checks.test_middleware."
OURS = "hmac_gateway.middleware.HmacGatewayMiddleware"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
CACHE = "django.middleware.cache.CacheMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"

# --- a site ---


@cache_control(public=True)
def hello(request: HttpRequest) -> HttpResponse:
    consumer = request.hmac.consumer if hasattr(request, "hmac") else None  # type: ignore[attr-defined]
    return HttpResponse(f"{consumer and consumer.username} {len(request.body)}")


def lazy(request: HttpRequest) -> HttpResponse:
    return HttpResponse("did not look")


urlpatterns = [
    path("api/x", hello),
    path("paged/x", cache_page(60)(hello)),
    path("lazy/x", lazy),
]


class Derived(HmacGatewayMiddleware):
    """A site's own."""


class Middleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.look(request)
        return self.get_response(request)

    def look(self, request: HttpRequest) -> None:
        """Whatever it reads."""


class ReadsBody(Middleware):
    def look(self, request: HttpRequest) -> None:
        assert isinstance(request.body, bytes)


class ReadsForm(Middleware):
    def look(self, request: HttpRequest) -> None:
        request.POST.get("a")


class ReadsStream(Middleware):
    def look(self, request: HttpRequest) -> None:
        request.read(1)


class ReadsFormInView(Middleware):
    def process_view(self, request: HttpRequest, *given: Any) -> None:
        request.POST.get("a")


def reads_form(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.FILES is not None
        return get_response(request)

    return middleware


def makes_ours(get_response: Callable[[HttpRequest], HttpResponse]) -> HmacGatewayMiddleware:
    return HmacGatewayMiddleware(get_response)


class OtherLibrarys:
    """Caches of other libraries have Django's names, and not always its classes."""


class OwnFetch(FetchFromCacheMiddleware):
    """A site's own."""


class OwnUpdate(UpdateCacheMiddleware):
    """A site's own."""


class CorsMiddleware:
    """What django-cors-headers does: answers preflight requests, and writes on every other answer who may read it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        asked = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = HttpResponse() if asked else self.get_response(request)
        response["Access-Control-Allow-Origin"] = request.headers["Origin"]
        return response


FetchAlike = type("FetchFromCacheMiddleware", (OtherLibrarys,), {})
EVERYTHING = [
    UPDATE,
    "django.middleware.security.SecurityMiddleware",
    OURS,
    "django.middleware.gzip.GZipMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    CSRF,
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    FETCH,
]


def ordered(*names: str, protect: bool = True) -> override_settings:
    entries = [entry(), entry("^/paged/"), entry("^/lazy/")] if protect else []
    given = {
        **HMAC_GATEWAY,
        "PROTECT": entries,
        "CREDENTIALS": {name: {"secret_key": "my-hmac-secret-0123"} for name in ("alice", "bob")},
    }
    return override_settings(MIDDLEWARE=[*names], HMAC_GATEWAY=given, ROOT_URLCONF=HERE[:-1])


def ids(*names: str, protect: bool = True) -> list[str]:
    with override_settings(MIDDLEWARE=[*names], HMAC_GATEWAY={**HMAC_GATEWAY, "PROTECT": [entry()] if protect else []}):
        return [name.partition(".")[2] for name in found()]


# --- what the checks say ---


def test_missing_while_something_is_to_be_protected() -> None:
    assert ids(*MIDDLEWARE) == ["E011"]
    assert ids(*MIDDLEWARE, protect=False) == []


@pytest.mark.parametrize("protect", [True, False])
def test_the_right_place(protect: bool) -> None:
    assert ids(*EVERYTHING, protect=protect) == []
    for own in ("Derived", "makes_ours"):
        assert ids(*(name.replace(OURS, HERE + own) for name in EVERYTHING), protect=protect) == []


def test_more_than_once() -> None:
    assert ids(OURS, OURS) == ["W023"]
    assert ids(OURS, HERE + "Derived") == ["W023"]


@pytest.mark.parametrize("name", [FETCH, CACHE, HERE + "OwnFetch", HERE + "FetchAlike"])
def test_behind_what_answers_from_a_cache(name: str) -> None:
    assert ids(UPDATE, name, OURS) == ["E012"]
    assert ids(UPDATE, name, HERE + "Derived", protect=False) == ["E012"]


@pytest.mark.parametrize("name", [UPDATE, CACHE, HERE + "OwnUpdate"])
def test_before_what_stores_answers(name: str) -> None:
    assert ids(OURS, name) == ["E013"]


@pytest.mark.parametrize("name", ["ReadsForm", "ReadsStream", "reads_form"])
def test_behind_what_reads_bodies(name: str) -> None:
    assert ids(HERE + name, OURS) == ["W008"]
    assert ids(OURS, HERE + name) == []
    with (
        protecting(entry(validate_request_body=False)),
        override_settings(MIDDLEWARE=[HERE + name, OURS]),
    ):
        assert found() == {}, "nobody compares bodies"


@pytest.mark.parametrize("name", ["ReadsBody", "ReadsFormInView"])
def test_readers_that_do_no_harm(name: str) -> None:
    assert ids(HERE + name, OURS) == []


def test_django_has_no_middleware_that_reads_bodies_too_early() -> None:
    for name in [*EVERYTHING, CACHE]:
        assert ids(name, OURS) in ([], ["W023"], ["E012"]), name
    assert not reads_bodies(None)


def test_before_what_answers_preflight_requests() -> None:
    assert ids(OURS, HERE + "CorsMiddleware") == ["W025"]
    assert ids(HERE + "CorsMiddleware", OURS) == []


def test_what_cannot_be_imported_is_left_to_django() -> None:
    assert ids("site.middleware.Gone", OURS) == []


# --- and why ---


@pytest.fixture
def empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def ask(url: str, name: str = "") -> str:
    headers = signed("GET", url, key_id=name, secret="my-hmac-secret-0123", listed=LISTED, headers=DIGEST)
    response = Client().get(url, headers=headers if name else {})
    return response.content.decode() if response.status_code == 200 else str(response.status_code)


LISTED = ["@request-target", "date", "digest"]
DIGEST = {"digest": digest_of(b"")}


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("order", "url", "second", "nobody"),
    [
        ((UPDATE, OURS, FETCH), "/api/x", "bob 0", "401"),
        # E012: whatever was stored once is there for all.
        ((UPDATE, FETCH, OURS), "/paged/x", "alice 0", "alice 0"),
        ((CACHE, OURS), "/paged/x", "alice 0", "alice 0"),
        # E013: the answer is stored before it is marked as private.
        ((OURS, UPDATE, FETCH), "/api/x", "alice 0", "401"),
        ((OURS, CACHE), "/api/x", "alice 0", "401"),
        # What no check sees: a view that is cached by itself.
        ((OURS,), "/paged/x", "alice 0", "401"),
    ],
)
def test_who_gets_whose_answer(order: tuple[str, ...], url: str, second: str, nobody: str) -> None:
    with ordered(*order):
        assert ask(url, "alice") == "alice 0"
        assert ask(url, "bob") == second
        assert ask(url) == nobody


FORM = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("order", "outcome"),
    [
        ((CSRF, OURS), "59"),
        ((OURS, CSRF), "59"),
        ((HERE + "ReadsBody", OURS), "59"),
        ((HERE + "ReadsForm", OURS), ImproperlyConfigured),
        ((HERE + "ReadsStream", OURS), ImproperlyConfigured),
        ((HERE + "reads_form", OURS), ImproperlyConfigured),
        ((OURS, HERE + "ReadsBody"), "59"),
        # The view's own matter, as without us: Django keeps no body of a form with files.
        ((HERE + "ReadsFormInView", OURS), RawPostDataException),
        ((OURS, HERE + "ReadsForm"), RawPostDataException),
        ((OURS, OURS), "59"),
    ],
)
def test_whose_body_can_be_compared(order: tuple[str, ...], outcome: Any) -> None:
    headers = signed(
        "POST",
        "/api/x",
        key_id="alice",
        secret="my-hmac-secret-0123",
        listed=LISTED,
        headers={"digest": digest_of(FORM)},
    )

    def send(url: str) -> str:
        kind = "multipart/form-data; boundary=x"
        return Client(enforce_csrf_checks=True).post(url, FORM, content_type=kind, headers=headers).content.decode()

    with ordered(*order):
        if isinstance(outcome, str):
            assert send("/api/x") == f"alice {outcome}"
        else:
            with pytest.raises(outcome):
                send("/api/x")


@pytest.mark.parametrize(
    ("order", "preflight"), [((HERE + "CorsMiddleware", OURS), 200), ((OURS, HERE + "CorsMiddleware"), 401)]
)
def test_what_browsers_are_told_before_they_send_a_credential(order: tuple[str, ...], preflight: int) -> None:
    asking = {"origin": "https://shop.example", "access-control-request-method": "GET"}
    with ordered(*order):
        assert Client().options("/api/x", headers=asking).status_code == preflight
        refused = Client().get("/api/x", headers={"origin": "https://shop.example"})
    assert refused.status_code == 401
    assert refused.has_header("Access-Control-Allow-Origin") is (preflight == 200), "else nobody sees the refusal"
