"""A real nginx asks the auth endpoint, with the configuration of docs/nginx.md, in front of a real upstream."""

from __future__ import annotations

import base64
import contextlib
import hmac
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.certificates import Authority
from tests.support.echo import EchoUpstream
from tests.support.nginx import Nginx
from tests.support.proxied import Proxied, wait_for
from tests.support.raw_client import RawAnswer, RawClient
from tests.support.served import Served, digest_of, free_port, signed

pytestmark = pytest.mark.service

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "nginx.md").read_text()
AUTH, BALANCER = (ROOT / "examples" / "nginx" / f"{name}.conf" for name in ("auth_request", "load_balancer"))
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
    """The example with the ports of this run."""
    return with_ports(AUTH.read_text(), {"9080": gateway.port, "9181": upstream.port, "8080": "LISTEN"})


def with_ports(text: str, ports: dict[str, int | str]) -> str:
    for port, ours in ports.items():
        assert text.count(f" 127.0.0.1:{port}") + text.count(f"//127.0.0.1:{port}") == 1
        text = re.sub(rf"( |//)127\.0\.0\.1:{port}\b", rf"\g<1>127.0.0.1:{ours}", text)
    return text


def test_the_page_shows_the_examples() -> None:
    shown = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.M | re.S)
    assert shown == [AUTH.read_text(), BALANCER.read_text()]


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
            "proxied": {"uri": "/proxied", "plugins": {"hmac-auth": {"scheme": "hmacproxy", "key_id": "client-1"}}},
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
    # Nor is the application told of another connection.
    facts = {"X-Forwarded-Host": "inside.test", "X-Forwarded-Port": "1", "X-Forwarded-Proto": "https"}
    facts |= {"X-Forwarded-For": "10.9.9.9", "X-Real-IP": "10.9.9.9", "Forwarded": "host=inside.test"}
    headers = told(ask(nginx, "GET", "/open", facts))
    assert not set(facts.values()) & set(headers.values()) and "Forwarded" not in headers
    assert headers["X-Forwarded-Host"] == "shop.test" and headers["X-Forwarded-For"] == "127.0.0.1"
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
        ("http://shop.test/orders", 400),  # nginx itself, by our configuration
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


def test_a_target_cannot_name_another_server_than_host_does(gateway: Proxied, upstream: EchoUpstream) -> None:
    # nginx chooses the server by an absolute target; what the gateway is asked about has the Host header's host.
    gateway.put(
        "/routes/inside",
        {"uri": "/open*", "host": "inside.test", "upstream_id": "nowhere", "plugins": {"hmac-auth": {}}},
    )
    gateway.enforce()
    shared, servers = documented(gateway, upstream).split("server {\n    listen", 1)
    sites = [f"server {{\n    server_name {name};\n    listen{servers}" for name in ("shop.test", "inside.test")]
    with Nginx(shared + "\n".join(sites)) as nginx:
        assert ask(nginx, "GET", "/open").status == 200
        assert ask(nginx, "GET", "/open", host="inside.test").status == 401
        for target in ("http://inside.test/open", "HTTP://inside.test/open", "x://inside.test/open"):
            assert ask(nginx, "GET", target).status == 400
            with nginx.client() as client:
                client.send(f"GET   {target} HTTP/1.0\r\nHost: shop.test\r\n\r\n".encode())
                assert client.answer().status == 400


def test_bodies_that_must_be_checked_are_refused(nginx: Nginx) -> None:
    for body in (b"", b"hello"):
        headers = signed("POST", "/bodies", listed=("date", "digest"), headers={"digest": digest_of(body)})
        assert ask(nginx, "POST", "/bodies", headers, body or None).status == 403
    assert ask(nginx, "POST", "/bodies", (), b"hello").status == 401


def test_hmacproxys_signatures_of_requests_without_a_body(nginx: Nginx) -> None:
    def signed_so(method: str) -> list[tuple[str, str]]:
        made = hmac.digest(b"my-hmac-secret", f"{method}\n/proxied\n".encode(), "sha1")
        return [("X-Signature", f"sha1 {base64.b64encode(made).decode()}")]

    assert told(ask(nginx, "GET", "/proxied", signed_so("GET")))["X-Consumer-Username"] == "hmac-auth-consumer"
    assert ask(nginx, "GET", "/proxied", signed_so("HEAD")).status == 401
    assert ask(nginx, "POST", "/proxied", signed_so("POST"), b"").status == 403


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


# --- nginx in front of several gateways ---


class Balanced:
    """Two gateways over one database, and nginx before them as the example has it."""

    def __init__(self, folder: Path, upstream: EchoUpstream) -> None:
        environment = {"HMAC_GATEWAY_TRUSTED_PROXIES": "127.0.0.1", "HMAC_GATEWAY_REPLAY_STORE": "database"}
        self.first = Proxied(environment=environment)
        environment["HMAC_GATEWAY_REFRESH_SECONDS"] = "0.02"
        self.second = Served(environment=environment, database_url=self.first.environment["DATABASE_URL"])
        self.tls_port = free_port()
        authority = Authority(folder)
        cert, key = authority.issue("127.0.0.1")
        self.trust = ssl.create_default_context(cafile=authority.ca_file)
        ports = {"9080": self.first.port, "9280": self.second.port, "8080": "LISTEN", "8443": self.tls_port}
        text = with_ports(BALANCER.read_text(), ports)
        text = text.replace("/etc/nginx/gateway.pem", cert).replace("/etc/nginx/gateway.key", key)
        self.nginx = Nginx(text)
        self._routes = {"port": upstream.port}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.first)
            routes: dict[str, dict[str, Any]] = {
                "orders": {"signed_headers": ["@request-target", "host", "date"]},
                "bodies": {"signed_headers": ["@request-target", "date", "digest"], "validate_request_body": True},
                "once": {"replay_protection": True},
            }
            nodes = {"type": "roundrobin", "nodes": {f"127.0.0.1:{self._routes['port']}": 1}}
            self.first.put("/upstreams/echo", nodes)
            for name, plugin in routes.items():
                route = {"uri": f"/{name}*", "upstream_id": "echo", "plugins": {"hmac-auth": plugin}}
                self.first.put(f"/routes/{name}", route)
            self.first.enforce()
            stack.enter_context(self.second)
            stack.enter_context(self.nginx)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None = None, tls: bool = False
    ) -> RawAnswer:
        host = headers.pop("host", "shop.test")
        port = self.tls_port if tls else self.nginx.port
        with RawClient(port, tls=self.trust if tls else None) as client:
            return client.ask(method, target, host, headers.items(), body)


@pytest.fixture(scope="module")
def balanced(upstream: EchoUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    with Balanced(tmp_path_factory.mktemp("balanced"), upstream) as found:
        yield found


COVERED = ("@request-target", "host", "date")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    "target", ["/orders/a%2Fb?x=%20y&z", "//orders//b", "/orders/%7Eb/.c", "/orders/%41?", "/orders?a=/../b"]
)
def test_signatures_verify_behind_it(balanced: Balanced, target: str, tls: bool) -> None:
    headers = signed("GET", target, listed=COVERED, headers={"host": "shop.test:8443"})
    for _ in range(2):  # one for each gateway
        answer = balanced.ask("GET", target, dict(headers), tls=tls)
        got = told(answer)
        assert got["X-Consumer-Username"] == "hmac-auth-consumer"
        # Servers of ASGI do not tell a bare question mark.
        assert answer.json()["url"].endswith(target.rstrip("?"))
        assert (got["X-Real-Ip"], got["X-Forwarded-Proto"]) == ("127.0.0.1", "https" if tls else "http")
    assert balanced.ask("GET", target + "x", dict(headers), tls=tls).status == 401
    assert balanced.ask("GET", target, {**headers, "host": "other.test"}, tls=tls).status == 401


def test_bodies_are_checked_and_arrive(balanced: Balanced) -> None:
    for size in (0, 5, 3_000_000):
        body = b"x" * size
        headers = signed(
            "POST", "/bodies", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(body)}
        )
        answer = balanced.ask("POST", "/bodies", dict(headers), body)
        assert answer.status == 200 and answer.json()["size"] == size
        assert balanced.ask("POST", "/bodies", dict(headers), body + b"y").status == 401
    assert balanced.ask("POST", "/bodies", {}, b"x" * 100).status == 401


def test_a_signature_passes_once_at_all_gateways(balanced: Balanced) -> None:
    headers = signed("POST", "/once")
    assert sorted(balanced.ask("POST", "/once", dict(headers), b"").status for _ in range(4)) == [200, 401, 401, 401]


def test_a_client_cannot_choose_its_address(balanced: Balanced) -> None:
    forged = {
        "x-real-ip": "10.9.9.9",
        "x-forwarded-for": "10.9.9.9",
        "x-forwarded-proto": "ftp",
        "x-request-id": "mine",
    }
    headers = signed("GET", "/orders", listed=COVERED, headers={"host": "s.test"})
    answer = balanced.ask("GET", "/orders", {**headers, **forged, "x-request-id": "mine"})
    got = told(answer)
    assert "10.9.9.9" not in str(got) and got["X-Forwarded-Proto"] == "http" and answer.get("x-request-id") != "mine"


def test_a_target_cannot_name_another_host_than_host_does(balanced: Balanced) -> None:
    headers = signed("GET", "/orders", listed=COVERED, headers={"host": "shop.test"})
    assert balanced.ask("GET", "/orders", dict(headers)).status == 200
    assert balanced.ask("GET", "http://inside.test/orders", dict(headers)).status == 400


def test_clients_do_not_reach_the_auth_endpoint(balanced: Balanced) -> None:
    told_so = {"X-Original-URI": "/orders", **signed("GET", "/orders", listed=COVERED, headers={"host": "s.test"})}
    for target in ("/.hmac-gateway/auth", "/.hmac%2Dgateway/auth", "//.hmac-gateway//auth", "/x/../.hmac-gateway/auth"):
        assert balanced.ask("GET", target, dict(told_so)).status == 404, target


def test_one_gateway_may_be_away(balanced: Balanced) -> None:
    balanced.second.stop()
    for _ in range(4):
        headers = signed("GET", "/orders", listed=COVERED, headers={"host": "s.test"})
        assert balanced.ask("GET", "/orders", headers).status == 200
