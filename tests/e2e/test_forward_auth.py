"""What Traefik, Caddy and Envoy ask, sent over plain sockets as they document it: none of them runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.proxied import Proxied
from tests.support.raw_client import RawAnswer
from tests.support.served import signed

AUTH = "/.hmac-gateway/auth"
Headers = dict[str, str]


def traefik(method: str, target: str, host: str, headers: Headers) -> bytes:
    """ForwardAuth: a GET with a Host, an agent and codings of its own, the client's headers, and X-Forwarded-…"""
    own = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": host, "X-Forwarded-Method": method}
    own |= {"X-Forwarded-Port": "443", "X-Forwarded-Proto": "https", "X-Forwarded-Uri": target}
    own |= {"X-Forwarded-Server": "traefik-1", "X-Real-Ip": "203.0.113.7", "Accept-Encoding": "gzip"}
    return _bytes(f"GET {AUTH}", {"Host": "hmac-gateway:9080", **headers, **own})


def caddy(method: str, target: str, host: str, headers: Headers) -> bytes:
    """forward_auth: the client's Host, no body, and header_up for the method and the target."""
    own = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": host, "X-Forwarded-Method": method}
    own |= {"X-Forwarded-Proto": "https", "X-Forwarded-Uri": target, "X-Real-IP": "203.0.113.7"}
    return _bytes(f"GET {AUTH}", {"Host": host, "Accept-Encoding": "gzip", **headers, **own})


def envoy(method: str, target: str, host: str, headers: Headers) -> bytes:
    """ext_authz over HTTP: the client's method, Host and headers, the path behind the prefix, Content-Length 0."""
    own = {"content-length": "0", "x-forwarded-proto": "https", "x-envoy-internal": "true"}
    own |= {"x-forwarded-for": "203.0.113.7", "x-envoy-expected-rq-timeout-ms": "1000"}
    return _bytes(f"{method} {AUTH}{target}", {"host": host, **headers, **own})


def _bytes(line: str, headers: Headers) -> bytes:
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


SHAPES: dict[str, Callable[..., bytes]] = {"traefik": traefik, "caddy": caddy, "envoy": envoy}


@pytest.fixture(scope="module", params=[("traefik", "caddy"), ("envoy",)], ids=["forwarded", "path"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Any]:
    environment = {"HMAC_GATEWAY_ORIGINAL_HEADERS": request.param[0], "HMAC_GATEWAY_TRUSTED_PROXIES": "127.0.0.1"}
    with Proxied(environment=environment) as served:
        covered = {"signed_headers": ["@request-target", "host", "date"]}
        routes: dict[str, Any] = {
            "orders": {"uri": "/orders*", "methods": ["GET", "POST"], "plugins": {"hmac-auth": covered}},
            "open": {"uri": "/open"},
            "far": {"uri": "/far", "remote_addrs": ["203.0.113.0/24"]},
            "bodies": {"uri": "/bodies", "plugins": {"hmac-auth": {"validate_request_body": True}}},
        }
        for name, route in routes.items():
            served.put(f"/routes/{name}", {"host": "shop.test", "upstream_id": "nowhere", **route})
        served.enforce()
        served.shapes = request.param  # type: ignore[attr-defined]
        yield served


def signed_for(method: str, target: str) -> Headers:
    headers = signed(method, target, listed=("@request-target", "host", "date"), headers={"host": "shop.test:8443"})
    return {name: value for name, value in headers.items() if name != "host"}


def test_what_they_ask_is_answered_as_they_want_it(gateway: Any) -> None:
    for name in gateway.shapes:
        good = 200 if name == "envoy" else 202

        def ask(
            method: str, target: str, headers: Headers, host: str = "shop.test:8443", name: str = name
        ) -> RawAnswer:
            with gateway.client() as client:
                client.send(SHAPES[name](method, target, host, headers))
                return client.answer(method if name == "envoy" else "GET")  # type: ignore[no-any-return]

        for target in ("/orders", "/orders/a%2Fb?c=%20d", "//orders"):
            for method in ("GET", "POST"):
                answer = ask(method, target, signed_for(method, target))
                assert (answer.status, answer.get("x-consumer-username")) == (good, "hmac-auth-consumer"), target
        right = signed_for("GET", "/orders")
        refused = ask("GET", "/orders", {})
        assert (refused.status, refused.get("www-authenticate")) == (401, 'hmac realm="hmac"')
        assert ask("GET", "/orders/2", right).status == 401
        assert ask("POST", "/orders", right).status == 401
        assert ask("DELETE", "/orders", signed_for("DELETE", "/orders")).status == 403
        assert ask("GET", "/orders", right, "other.test").status == 403
        assert ask("GET", "/open", {}).status == good
        assert ask("GET", "/far", {}).status == (403 if name == "envoy" else good)
        assert ask("GET", "/open/../orders", {}).status == 403
        assert ask("POST", "/bodies", {}).status == 401
        # Another proxy's headers, which a client may send, tell nothing.
        forged = {"X-Original-URI": "/open", "X-Original-Method": "GET", "X-Consumer-Username": "admin"}
        assert ask("GET", "/orders", forged).status == 401
        answer = ask("GET", "/open", forged)
        assert answer.status == good and answer.get("x-consumer-username") is None
        removed = answer.get("x-envoy-auth-headers-to-remove")
        assert (removed is not None and "x-consumer-username" in removed) == (name == "envoy")


def test_what_is_no_question_is_refused(gateway: Any) -> None:
    lines = [f"GET {AUTH}", f"GET {AUTH}/", f"GET {AUTH}?x=/open", f"GET {AUTH}/open", "GET /.hmac-gateway/authx/open"]
    for line in lines:
        with gateway.client() as client:
            client.send(_bytes(line, {"host": "shop.test", "x-original-uri": "/open"}))
            asked = "envoy" in gateway.shapes and line == f"GET {AUTH}/open"
            assert client.answer().status in ((200,) if asked else (403, 404)), line
