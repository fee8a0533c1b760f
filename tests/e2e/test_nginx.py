"""A real nginx asks the auth endpoint, with the configuration of docs/nginx.md, in front of a real upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.echo import EchoUpstream
from tests.support.nginx import Nginx
from tests.support.proxied import Proxied, wait_for
from tests.support.raw_client import RawAnswer
from tests.support.served import digest_of, signed

pytestmark = pytest.mark.service

PAGE = (Path(__file__).parent.parent.parent / "docs" / "nginx.md").read_text()
SIGNED = {"signed_headers": ["@request-target", "date"]}
FORGED = [
    ("X-Original-URI", "/open"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Original-Proto", "nonsense"),
    ("X-Real-IP", "10.9.9.9"),
    ("X-Consumer-Username", "admin"),
    ("X-Credential-Username", "admin"),
    ("X_Consumer_Username", "admin"),
    ("X-Anonymous-Consumer", "true"),
]


def documented(gateway: Proxied, upstream: EchoUpstream) -> str:
    """The page's configuration with the ports of this run."""
    found = re.search(r"^```nginx\n(.*?)^```$", PAGE, re.M | re.S)
    assert found is not None
    text = found[1]
    for port, ours in (("9080", str(gateway.port)), ("9181", str(upstream.port)), ("8080", "LISTEN")):
        assert text.count(f"127.0.0.1:{port}") == 1
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
    return text


@pytest.fixture(scope="module")
def upstream() -> Iterator[EchoUpstream]:
    with EchoUpstream() as echo:
        yield echo


@pytest.fixture(scope="module", params=[True, False], ids=["trusted", "loopback"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Proxied]:
    environment = {"HMAC_GATEWAY_TRUSTED_PROXIES": "127.0.0.1"} if request.param else {}
    with Proxied(environment=environment) as served:
        routes: dict[str, dict[str, Any]] = {
            "orders": {"uri": "/orders*", "plugins": {"hmac-auth": SIGNED}},
            "open": {"uri": "/open*"},
            "read": {"uri": "/method", "methods": ["GET", "OPTIONS"]},
            "write": {"uri": "/method", "methods": ["POST"], "plugins": {"hmac-auth": SIGNED}},
            "bodies": {"uri": "/bodies", "plugins": {"hmac-auth": {"validate_request_body": True}}},
            "once": {"uri": "/once", "plugins": {"hmac-auth": {"replay_protection": True}}},
            "local": {"uri": "/local", "remote_addrs": ["127.0.0.0/8"]},
            "away": {"uri": "/away", "remote_addrs": ["10.0.0.0/8"]},
            "tls": {"uri": "/tls", "vars": [["scheme", "==", "https"]]},
        }
        for name, route in routes.items():
            served.put(f"/routes/{name}", {"host": "shop.test", "upstream_id": "nowhere", **route})
        served.enforce()
        served.trusted = request.param  # type: ignore[attr-defined]
        yield served


@pytest.fixture(scope="module")
def nginx(gateway: Proxied, upstream: EchoUpstream) -> Iterator[Nginx]:
    with Nginx(documented(gateway, upstream)) as front:
        yield front


def ask(
    nginx: Nginx, method: str, target: str, headers: Any = (), body: bytes | None = None, host: str = "shop.test"
) -> RawAnswer:
    pairs = headers.items() if isinstance(headers, dict) else headers
    with nginx.client() as client:
        return client.ask(method, target, host, list(pairs), body)


def told(answer: RawAnswer) -> dict[str, str]:
    """What the application got."""
    assert answer.status == 200, answer.body
    headers: dict[str, str] = answer.json()["headers"]
    return headers


def test_a_signed_get_arrives_with_its_identity(nginx: Nginx) -> None:
    target = "/orders/a%2Fb?x=%20y"
    answer = ask(nginx, "GET", target, signed("GET", target))
    headers = told(answer)
    assert headers["X-Consumer-Username"] == "hmac-auth-consumer"
    assert headers["X-Consumer-Custom-Id"] == "c-7"
    assert headers["X-Credential-Identifier"] == "cred"
    assert "X-Anonymous-Consumer" not in headers
    assert answer.json()["url"].endswith(target)


def test_the_client_gets_the_id_under_which_the_gateway_knows_its_request(nginx: Nginx, gateway: Proxied) -> None:
    forged = [("X-Request-Id", "forged-by-the-client")]
    for target, status in (("/orders/id-401", 401), ("/nowhere/id-403", 403)):
        answer = ask(nginx, "GET", target, forged)
        assert answer.status == status
        given = answer.get("x-request-id")
        wait_for(lambda given=given: any(line["request_id"] == given for line in gateway.access_lines()))
        assert given != "forged-by-the-client"
    answer = ask(nginx, "GET", "/orders", [*forged, *signed("GET", "/orders").items()])
    assert answer.get("x-request-id") == told(answer)["X-Request-Id"] != "forged-by-the-client"


def test_an_unsigned_get_is_401_with_the_challenge(nginx: Nginx, gateway: Proxied) -> None:
    answer = ask(nginx, "GET", "/orders/unsigned?secret=1")
    assert answer.status == 401
    assert answer.get("www-authenticate") == 'hmac realm="hmac"'
    wait_for(lambda: any(line["path"] == "/orders/unsigned" for line in gateway.access_lines("orders")))
    (line,) = [line for line in gateway.access_lines("orders") if line["path"] == "/orders/unsigned"]
    assert (line["status"], line["reason"], line["method"]) == (401, "missing_credentials", "GET")


def test_a_refusal_is_kept_with_the_original_request_and_our_status(nginx: Nginx, gateway: Proxied) -> None:
    assert ask(nginx, "DELETE", "/kept?secret=1").status == 403
    code = (
        "from hmac_gateway.models import Rejection;"
        "print([(r.method, r.status, r.reason) for r in Rejection.objects.filter(path='/kept')])"
    )
    wait_for(lambda: gateway.python(code).strip() == "[('DELETE', 403, 'no_route')]")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "PATCH"])
def test_methods_are_the_originals(nginx: Nginx, method: str) -> None:
    right = signed(method, "/orders/1")
    assert ask(nginx, method, "/orders/1", right).status == 200
    assert ask(nginx, "GET", "/orders/1", right).status == 401
    assert ask(nginx, method, "/orders/1", signed("GET", "/orders/1")).status == 401


@pytest.mark.parametrize("size", [0, 1, 70_000, 900_000])
def test_a_post_does_not_hang_and_its_body_arrives(nginx: Nginx, size: int) -> None:
    body = b"x" * size
    with nginx.client() as client:
        client.sock.settimeout(4)
        for _ in range(2):  # the second on the same connection
            answer = client.ask("POST", "/orders", "shop.test", signed("POST", "/orders").items(), body)
            assert answer.status == 200
            assert answer.json()["size"] == size
        assert client.ask("POST", "/orders", "shop.test", (), body).status == 401


def test_a_chunked_post(nginx: Nginx) -> None:
    headers = [*signed("POST", "/orders").items(), ("transfer-encoding", "chunked")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    with nginx.client() as client:
        client.send(f"POST /orders HTTP/1.1\r\nhost: shop.test\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n".encode())
        assert client.answer().json()["data"] == "hello"


def test_many_requests_on_one_connection(nginx: Nginx) -> None:
    with nginx.client() as client:
        for number in range(30):
            target = f"/orders/{number}"
            assert client.ask("GET", target, "shop.test", signed("GET", target).items()).status == 200
            assert client.ask("GET", target, "shop.test").status == 401
            assert client.ask("GET", "/nowhere", "shop.test").status == 403


def test_a_client_cannot_speak_for_itself(nginx: Nginx) -> None:
    assert told(ask(nginx, "GET", "/open"))
    assert ask(nginx, "GET", "/orders", FORGED).status == 401
    assert ask(nginx, "POST", "/method", FORGED).status == 401
    assert told(ask(nginx, "GET", "/method"))
    assert ask(nginx, "GET", "/away", FORGED).status == 403
    headers = told(ask(nginx, "GET", "/open", FORGED))
    assert not [name for name in headers if "onsumer" in name or "redential" in name], headers
    headers = told(ask(nginx, "GET", "/orders", [*signed("GET", "/orders").items(), *FORGED]))
    assert headers["X-Consumer-Username"] == "hmac-auth-consumer"
    assert "X-Anonymous-Consumer" not in headers
    assert "X-Credential-Username" not in headers
    # nginx's own location is internal, and the endpoint is not behind `location /`.
    assert ask(nginx, "GET", "/hmac-gateway-auth", FORGED).status == 404
    assert ask(nginx, "GET", "/.hmac-gateway/auth", FORGED).status == 403


def test_the_clients_address_is_believed_from_trusted_proxies_only(nginx: Nginx, gateway: Any) -> None:
    assert ask(nginx, "GET", "/local").status == (200 if gateway.trusted else 403)
    assert ask(nginx, "GET", "/tls").status == 403


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/orders", 200),
        ("//orders", 200),
        ("/orders?", 200),
        ("/orders%2F..", 403),
        ("/open/../orders", 403),
        ("/open/%2e%2e/orders", 403),
        ("/open/..%5corders", 403),
        ("/open/%252e%252e/orders", 403),
        ("/open/;/orders", 403),
        ("/nowhere", 403),
        ("http://shop.test/orders", 200),
        ("/orders/caf\xc3\xa9", 200),
        ("/orders/%zz", 400),  # nginx itself
        ("/orders#x", 403),
    ],
)
def test_targets(nginx: Nginx, target: str, status: int) -> None:
    path = target.removeprefix("http://shop.test")
    assert ask(nginx, "GET", target, signed("GET", path) if path.isascii() else sign_bytes(path)).status == status


def sign_bytes(path: str) -> dict[str, str]:
    """Signed over bytes; `signed` would encode them as UTF-8 once more."""
    return signed("GET", path.encode("latin-1").decode())


@pytest.mark.parametrize(
    "headers",
    [
        [("date", "a"), ("date", "b")],
        [("authorization", 'Signature keyId="' + "x" * 3000)],
        [("cookie", "a" * 3000), ("x-a", "\xff\xfe")],
        [("upgrade", "websocket"), ("connection", "upgrade")],
        [("expect", "100-continue")],
        [("te", "trailers"), ("connection", "date, te")],
    ],
)
def test_odd_requests_never_become_500(nginx: Nginx, headers: list[tuple[str, str]]) -> None:
    assert ask(nginx, "GET", "/orders", headers).status in (400, 401, 403)


def test_what_is_no_http_stays_outside(nginx: Nginx) -> None:
    # nginx hands control characters on; the gateway's server answers 400 before anybody sees the request.
    assert ask(nginx, "GET", "/open", [("x-a", "a\x01b")]).status == 500


def test_other_hosts_have_other_routes(nginx: Nginx) -> None:
    assert ask(nginx, "GET", "/open", host="other.test").status == 403
    assert ask(nginx, "GET", "/open", host="SHOP.test:8080").status == 200
    assert ask(nginx, "GET", "/open", host="").status == 400
    with nginx.client() as client:
        client.send(b"GET /open HTTP/1.0\r\n\r\n")
        assert client.answer().status == 403


def test_bodies_that_must_be_checked_are_refused(nginx: Nginx) -> None:
    for body in (b"", b"hello"):
        headers = signed("POST", "/bodies", listed=("date", "digest"), headers={"digest": digest_of(body)})
        assert ask(nginx, "POST", "/bodies", headers, body or None).status == 403
    assert ask(nginx, "POST", "/bodies", (), b"hello").status == 401


def test_a_signature_passes_once_on_either_way(nginx: Nginx, gateway: Proxied) -> None:
    headers = signed("POST", "/once", listed=("date", "x-nonce"), headers={"x-nonce": "1"})
    assert ask(nginx, "POST", "/once", headers, b"a").status == 200
    assert ask(nginx, "POST", "/once", headers, b"a").status == 401
    assert gateway.ask("POST", "/once", "shop.test", headers.items(), b"a").status == 401


def test_an_nginx_that_forwards_the_length_does_not_hang_either(gateway: Proxied, upstream: EchoUpstream) -> None:
    # hmacproxy's published wiring: no Content-Length "", HTTP/1.0, the body kept back or announced in vain.
    text = documented(gateway, upstream).replace('proxy_set_header Content-Length "";', "")
    text = text.replace('proxy_http_version 1.1;\n        proxy_set_header Connection "";', "", 1)
    with Nginx(text) as front:
        for wanted, headers in ((200, signed("POST", "/orders")), (401, {})):
            with front.client() as client:
                client.sock.settimeout(4)
                answer = client.ask("POST", "/orders", "shop.test", headers.items(), b"x" * 5000)
                assert answer.status == wanted


def test_an_nginx_that_tells_nothing_opens_nothing(gateway: Proxied, upstream: EchoUpstream) -> None:
    gateway.put("/routes/all", {"uri": "/*", "host": "all.test", "upstream_id": "nowhere"})
    gateway.enforce()
    right = documented(gateway, upstream)
    text = right.replace("proxy_set_header X-Original-URI $request_uri;", 'proxy_set_header X-Original-URI "";')
    assert text != right
    with Nginx(text) as front:
        assert ask(front, "GET", "/open", host="all.test").status == 403
