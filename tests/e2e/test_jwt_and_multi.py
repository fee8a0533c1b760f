"""jwt-auth, its sign endpoint and multi-auth through a served gateway: API7's guide, and what services see."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.console import Console
from tests.support.nodes import Node
from tests.support.proxied import OK, Proxied, Seen, Upstream, seen
from tests.support.raw_client import Headers
from tests.support.raw_upstream import answer
from tests.support.served import Served
from tests.support.tokens import SECRET, pair, private_pem, public_pem, token
from tests.walkthroughs.guide import run_curl

KEY, LIFE = "john-jwt-key", 3
MISSING = b'{"message":"Missing authorization in request"}\n'
VERIFY = b'{"message":"failed to verify jwt"}\n'
FAILED = b'{"message":"Authorization Failed"}\n'


@pytest.fixture(scope="module")
def gateway() -> Iterator[Proxied]:
    with Proxied() as served:
        yield served


@pytest.fixture(scope="module")
def people(gateway: Proxied) -> Proxied:
    """joe with a token's secret, a key and a password; rita with a key pair."""
    for name in ("joe", "rita", "guest"):
        gateway.put(f"/consumers/{name}", {"username": name})
    for name, plugins in {
        "joe/credentials/jwt": {"jwt-auth": {"key": "joe-key", "secret": SECRET, "exp": 600}},
        "joe/credentials/key": {"key-auth": {"key": "joe-api-key"}},
        "joe/credentials/basic": {"basic-auth": {"username": "joe", "password": "joe-password"}},
        "rita/credentials/jwt": {
            "jwt-auth": {
                "key": "rita-key",
                "algorithm": "ES256",
                "public_key": public_pem(pair("ES256")),
                "private_key": private_pem(pair("ES256")),
            }
        },
    }.items():
        gateway.put(f"/consumers/{name}", {"plugins": plugins})
    return gateway


@contextmanager
def route(gateway: Proxied, **plugins: dict[str, Any]) -> Iterator[tuple[str, Upstream]]:
    """A host name that leads to an upstream of its own, behind these plugins."""
    configs = {name.replace("_", "-"): config for name, config in plugins.items()}
    with Upstream(answer(OK)) as upstream:
        yield gateway.lead(upstream.port, route={"plugins": configs}), upstream


def passed(gateway: Proxied, target: str, headers: Headers = (), **plugins: dict[str, Any]) -> Seen:
    """The request as its upstream got it."""
    with route(gateway, **plugins) as (host, upstream):
        found = gateway.ask("GET", target, host, headers)
        assert found.status == 200, found
        return seen(upstream.peer())


# --- API7's guide, with its own commands ---


def guide(served: Served, command: str) -> tuple[str, dict[str, str], str]:
    """What `curl -i` prints: the status line, the headers, the body."""
    printed = run_curl(command.replace(":9080", f":{served.port}"))
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    line, *rest = head.split("\n")
    return line, {name.lower(): value for name, value in (entry.split(": ", 1) for entry in rest)}, body


@pytest.fixture(scope="module")
def published() -> Iterator[Served]:
    """A gateway with the guide's services and routes, and john with a credential, all but the nodes by the console."""
    with Node() as node, Served() as served:
        served.put("/services/httpbin", {"name": "httpbin", "upstream": {"nodes": {node.address: 1}}})
        served.put("/routes/get-ip", {"name": "get-ip", "uri": "/ip", "service_id": "httpbin"})
        served.put("/services/jwt-auth-api", {"name": "jwt-auth-api"})
        served.put(
            "/routes/jwt-auth-api",
            {"name": "jwt-auth-api", "paths": ["/api7/plugin/jwt/sign"], "service_id": "jwt-auth-api"},
        )
        with Console(served) as console:
            row = {"plugin": "jwt-auth", "identifier": KEY, "secret": "", "enabled": "on"}
            fields = {f"credentials-0-{name}": value for name, value in row.items()}
            console.submit(
                "/admin/hmac_consumers/consumer/add/",
                {"username": "john", "credentials-TOTAL_FORMS": "1", **fields},
            )
        found = served.admin("GET", "/consumers/john/credentials").json()["list"][0]
        # "In 30 seconds": a test need not wait that long.
        value = {"plugins": {"jwt-auth": {**found["value"]["plugins"]["jwt-auth"], "exp": LIFE}}}
        served.put(f"/consumers/john/credentials/{found['value']['id']}", value)
        yield served


@contextmanager
def enabled(served: Served, place: str, name: str) -> Iterator[None]:
    """The plugin with the guide's empty configuration, enabled in the console and taken away again."""
    page = f"/admin/hmac_proxy/{place}/change/"
    row = {"name": name, "config": "{\r\n}", "dialect": "apisix", "enabled": "on"}
    with Console(served) as console:
        fields: dict[str, str | None] = {f"plugins-0-{field}": value for field, value in row.items()}
        console.submit(page, {"plugins-TOTAL_FORMS": "1", **fields})
        served.settle()
        yield
        console.submit(page, {"plugins-0-DELETE": "on"})
        served.settle()


SIGN = 'curl -s "http://127.0.0.1:9080/apisix/plugin/jwt/sign?key=john-jwt-key"'


@pytest.mark.parametrize("place", ["service/httpbin", "route/get-ip"])
def test_the_guides_jwt_authentication(published: Served, place: str) -> None:
    def sign() -> str:
        return run_curl(SIGN.replace(":9080", f":{published.port}"))

    assert json.loads(sign()) == {"error_msg": "404 Route Not Found"}
    with enabled(published, "service/jwt-auth-api", "public-api"), enabled(published, place, "jwt-auth"):
        line, headers, body = guide(published, 'curl -i "http://127.0.0.1:9080/ip"')
        assert line == "HTTP/1.1 401 Unauthorized"
        assert body.encode() == MISSING and headers["www-authenticate"] == 'Bearer realm="jwt"'
        jwt_token = sign()
        assert jwt_token.count(".") == 2
        call = f'curl -i "http://127.0.0.1:9080/ip" -H "Authorization: {jwt_token}"'
        line, headers, body = guide(published, call)
        assert line == "HTTP/1.1 200 OK" and body.endswith("/ip john")
        time.sleep(LIFE + 0.2)
        line, headers, body = guide(published, call)
        assert (line, body.encode()) == ("HTTP/1.1 401 Unauthorized", VERIFY)
        # The path of the route itself.
        other = run_curl(SIGN.replace(":9080", f":{published.port}").replace("/apisix/", "/api7/"))
        assert guide(published, call.replace(jwt_token, f"Bearer {other}"))[0] == "HTTP/1.1 200 OK"
    assert json.loads(sign()) == {"error_msg": "404 Route Not Found"}


# --- the sign endpoint ---


@contextmanager
def signing(gateway: Proxied, **plugins: dict[str, Any]) -> Iterator[str]:
    configs = {"public-api": {}, **{name.replace("_", "-"): config for name, config in plugins.items()}}
    gateway.put("/routes/sign", {"uri": "/apisix/plugin/jwt/sign", "host": "sign.test", "plugins": configs})
    gateway.enforce()
    yield "sign.test"
    gateway.admin("DELETE", "/routes/sign")
    gateway.enforce()


@pytest.mark.parametrize("path", ["/apisix/plugin/jwt/sign", "/api7/plugin/jwt/sign"])
@pytest.mark.parametrize(("key", "user"), [("joe-key", "joe"), ("rita-key", "rita")])
def test_a_signed_token_is_let_in(people: Proxied, path: str, key: str, user: str) -> None:
    with signing(people) as host:
        found = people.ask("GET", f"{path}?key={key}&payload=%7B%22sub%22%3A7%7D", host)
        assert (found.status, found.get("content-type")) == (200, "text/plain; charset=utf-8")
        assert (found.get("cache-control"), bool(found.get("x-request-id"))) == ("no-store", True)
        got = passed(people, "/", [("Authorization", found.body.decode())], jwt_auth={})
        assert got.get("x-consumer-username") == user
        for target, status in (("", 400), ("?key=nobody", 404)):
            assert people.ask("GET", path + target, host).status == status
        for method in ("POST", "HEAD"):
            assert people.ask(method, f"{path}?key={key}", host).status == 404
        # A body that nobody asked for does not spoil the connection's next request.
        with people.client() as client:
            assert client.ask("GET", f"{path}?key={key}", host, body=b"x" * 10).status == 200
            assert client.ask("GET", f"{path}?key={key}", host).status == 200


def test_other_plugins_guard_the_sign_endpoint(people: Proxied) -> None:
    with signing(people, key_auth={}) as host:
        target = "/apisix/plugin/jwt/sign?key=joe-key"
        assert people.ask("GET", target, host).status == 401
        assert people.ask("GET", target, host, [("apikey", "joe-api-key")]).status == 200


# --- what services see ---

JWT = token("HS256", {"key": "joe-key"})


@pytest.mark.parametrize(
    ("target", "headers", "left", "cookie", "authorization"),
    [
        ("/a?b=%2f", [("Authorization", f"Bearer {JWT}")], "/a?b=%2f", None, None),
        (f"/a?b=%2f&jwt={JWT}&c", [], "/a?b=%2f&c", None, None),
        ("/a", [("Cookie", f"a=1; jwt={JWT};b=2")], "/a", "a=1; b=2", None),
        ("/a", [("Cookie", f"jwt={JWT}")], "/a", None, None),
    ],
)
def test_hidden_tokens(
    people: Proxied, target: str, headers: Headers, left: str, cookie: str | None, authorization: str | None
) -> None:
    found = passed(people, target, headers, jwt_auth={"hide_credentials": True})
    assert (found.target, found.get("cookie"), found.get("authorization")) == (left, cookie, authorization)
    assert found.get("x-consumer-username") == "joe" and found.get("x-credential-identifier") == "jwt"
    kept = passed(people, target, headers, jwt_auth={})
    assert JWT in kept.line + repr(kept.headers)


def test_an_anonymous_consumer(people: Proxied) -> None:
    config = {"hide_credentials": True, "anonymous_consumer": "guest"}
    found = passed(people, "/?jwt=x&b=1", [("Authorization", "Bearer x")], jwt_auth=config)
    assert (found.target, found.get("authorization")) == ("/?b=1", None)
    assert (found.get("x-consumer-username"), found.get("x-anonymous-consumer")) == ("guest", "true")


# --- multi-auth ---


def test_one_of_several_methods(people: Proxied) -> None:
    password = ("Authorization", "Basic " + base64.b64encode(b"joe:joe-password").decode())
    config = {
        "auth_plugins": [
            {"jwt-auth": {"hide_credentials": True}},
            {"basic-auth": {}},
            {"key-auth": {"header": "x-key"}},
        ]
    }
    with route(people, multi_auth=config) as (host, upstream):
        for headers in ([("Authorization", JWT)], [password], [("X-Key", "joe-api-key")]):
            assert people.ask("GET", "/", host, headers).status == 200
            got = seen(upstream.peer(len(upstream.peers) - 1))
            assert got.get("x-consumer-username") == "joe"
        for headers in ([], [("Authorization", "Bearer x")], [("X-Key", "wrong")]):
            found = people.ask("GET", "/", host, headers)
            assert (found.status, found.body) == (401, FAILED)
            assert found.get("www-authenticate") == 'apikey realm="key"'
    assert passed(people, "/", [password], multi_auth=config).get("authorization") == password[1]
    assert passed(people, "/", [("Authorization", JWT)], multi_auth=config).get("authorization") is None


# --- what is kept ---


def test_logs_hold_no_token(people: Proxied) -> None:
    with route(people, jwt_auth={"expose_reason": True}) as (host, upstream), signing(people) as sign:
        made = people.ask("GET", "/apisix/plugin/jwt/sign?key=joe-key", sign).body.decode()
        for target, headers in (
            (f"/?jwt={made}", []),
            ("/", [("Authorization", JWT + "x")]),
            ("/", [("Cookie", "jwt=x")]),
        ):
            people.ask("GET", target, host, headers)
        deadline = time.monotonic() + 10
        while len(people.access_lines(host)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        reasons = [line["reason"] for line in people.access_lines(host)]
        assert reasons == ["", "signature_mismatch", "malformed_authorization"]
    text = people.log.read_text()
    for secret in (SECRET, made, JWT, *JWT.split(".")[1:], private_pem(pair("ES256")).splitlines()[1]):
        assert secret not in text
