"""key-auth and basic-auth through a served gateway: as API7's guide does it with curl, and what services see."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.support.console import Console
from tests.support.nodes import Node
from tests.support.proxied import OK, Proxied, Seen, Upstream, seen
from tests.support.raw_client import Headers
from tests.support.raw_upstream import answer
from tests.support.served import Served, signed
from tests.walkthroughs.guide import run_curl

PROMISE = 1.0
KEY, PASSWORD = "alice-primary-key", "alice-password"
MISSING_KEY = b'{"message":"Missing API key found in request"}\n'
INVALID_KEY = b'{"message":"Invalid API key in request"}\n'
MISSING_BASIC = b'{"message":"Missing authorization in request"}\n'
INVALID_BASIC = b'{"message":"Invalid authorization in request"}\n'
WRONG_USER = b'{"message":"Invalid user authorization"}\n'


def basic(pair: str) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(pair.encode()).decode()


def within(seconds: float, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took longer than promised"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def people(gateway: Proxied) -> Proxied:
    """alice with a key and a password, joe with a key on himself, guest without anything."""
    for name in ("alice", "guest"):
        gateway.put(f"/consumers/{name}", {"username": name})
    gateway.put("/consumers/alice/credentials/key", {"plugins": {"key-auth": {"key": KEY}}})
    gateway.put(
        "/consumers/alice/credentials/basic",
        {"plugins": {"basic-auth": {"username": "alice", "password": PASSWORD}}},
    )
    gateway.put("/consumers/joe", {"username": "joe", "plugins": {"key-auth": {"key": "joe's key & more"}}})
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
    """A gateway with the guide's service and route, and a consumer with both credentials, made in the console."""
    with Node() as node, Served() as served:
        nodes = {node.address: 1}
        served.put("/services/httpbin", {"name": "httpbin", "upstream": {"nodes": nodes}})
        served.put("/routes/get-ip", {"name": "get-ip", "uri": "/ip", "service_id": "httpbin"})
        fields = {"username": "alice", "credentials-TOTAL_FORMS": "2"}
        for number, (plugin, identifier, secret) in enumerate(
            [("key-auth", "", KEY), ("basic-auth", "alice", PASSWORD)]
        ):
            row = {"plugin": plugin, "identifier": identifier, "secret": secret, "enabled": "on"}
            fields |= {f"credentials-{number}-{name}": value for name, value in row.items()}
        with Console(served) as console:
            page = console.submit("/admin/hmac_consumers/consumer/add/", dict(fields)).text
            assert KEY in page and PASSWORD in page  # shown, this once
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


@pytest.mark.parametrize("place", ["service/httpbin", "route/get-ip"])
def test_the_guides_key_authentication(published: Served, place: str) -> None:
    with enabled(published, place, "key-auth"):
        line, headers, body = guide(published, 'curl -i "http://127.0.0.1:9080/ip"')
        assert line == "HTTP/1.1 401 Unauthorized"
        assert body.encode() == MISSING_KEY and headers["www-authenticate"] == 'apikey realm="key"'
        line, headers, body = guide(published, 'curl -i "http://127.0.0.1:9080/ip" -H "apikey: wrongkey"')
        assert (line, body.encode()) == ("HTTP/1.1 401 Unauthorized", INVALID_KEY)
        line, headers, body = guide(published, f'curl -i "http://127.0.0.1:9080/ip" -H "apikey: {KEY}"')
        assert line == "HTTP/1.1 200 OK" and body.endswith("/ip alice")
        # The other place, which the guide does not show.
        line, headers, body = guide(published, f'curl -i "http://127.0.0.1:9080/ip?apikey={KEY}"')
        assert line == "HTTP/1.1 200 OK" and body.endswith(" alice")
    assert guide(published, 'curl -i "http://127.0.0.1:9080/ip"')[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("place", ["service/httpbin", "route/get-ip"])
def test_the_guides_basic_authentication(published: Served, place: str) -> None:
    with enabled(published, place, "basic-auth"):
        line, headers, body = guide(published, 'curl -i "http://127.0.0.1:9080/ip"')
        assert line == "HTTP/1.1 401 Unauthorized"
        assert body.encode() == MISSING_BASIC and headers["www-authenticate"] == 'Basic realm="basic"'
        for user in ("alice:wrong-password", "bob:alice-password"):
            line, headers, body = guide(published, f'curl -i "http://127.0.0.1:9080/ip" -u {user}')
            assert (line, body.encode()) == ("HTTP/1.1 401 Unauthorized", WRONG_USER)
        line, headers, body = guide(published, f'curl -i "http://127.0.0.1:9080/ip" -u alice:{PASSWORD}')
        assert line == "HTTP/1.1 200 OK" and body.endswith(" alice")


# --- clients ---


def test_other_clients_passwords(people: Proxied) -> None:
    """A password with colons, blanks and letters beyond ASCII, as requests and curl send it."""
    password = "pass:word with blanks and ü"
    config = {"username": "jörg", "password": password}
    people.put("/consumers/guest/credentials/b", {"plugins": {"basic-auth": config}})
    with route(people, basic_auth={}) as (host, upstream):
        with requests.Session() as session:
            session.trust_env = False
            session.auth = ("jörg".encode(), password.encode())
            assert session.get(f"{people.base}/", headers={"Host": host}, timeout=10).status_code == 200
        assert seen(upstream.peer()).get("x-consumer-username") == "guest"
        url = f"{people.base}/"
        printed = run_curl(f"curl -s -o /dev/null -w '%{{http_code}}' {url} -H 'Host: {host}' -u 'jörg:{password}'")
        assert printed == "200"
        printed = run_curl(f"curl -s {url} -H 'Host: {host}' -u 'jörg:pass'")
        assert printed.encode() == WRONG_USER


@pytest.mark.parametrize(
    ("headers", "target", "body"),
    [
        ([], "/?a=1", MISSING_KEY),
        ([("apikey", "")], f"/?apikey={KEY}", INVALID_KEY),
        ([("apikey", KEY), ("apikey", KEY)], "/", INVALID_KEY),
        ([], f"/?apikey={KEY}&apikey={KEY}", INVALID_KEY),
        ([], "/?apikey", INVALID_KEY),
        ([("apikey", "\xff\xfe")], "/", INVALID_KEY),
        ([], "/?apikey=%00%ff", INVALID_KEY),
    ],
)
def test_keys_that_are_refused(people: Proxied, headers: Headers, target: str, body: bytes) -> None:
    with route(people, key_auth={}) as (host, upstream):
        found = people.ask("GET", target, host, headers)
        assert (found.status, found.body, found.get("www-authenticate")) == (401, body, 'apikey realm="key"')
        assert found.get("content-type") == "application/json" and found.get("x-request-id")
        assert upstream.peers == []


@pytest.mark.parametrize(
    ("value", "body"),
    [("Bearer x", INVALID_BASIC), ("Basic", INVALID_BASIC), ("Basic \xff", INVALID_BASIC), ("basic YTpi", WRONG_USER)],
)
def test_authorizations_that_are_refused(people: Proxied, value: str, body: bytes) -> None:
    with route(people, basic_auth={}) as (host, upstream):
        found = people.ask("GET", "/", host, [("Authorization", value)])
        assert (found.status, found.body, found.get("www-authenticate")) == (401, body, 'Basic realm="basic"')
        assert upstream.peers == []


# --- what services see ---

TARGET = f"/a%2fb?z=%7e+1&apikey={KEY}&a=&z"


def test_without_hiding_everything_passes(people: Proxied) -> None:
    found = passed(people, TARGET, key_auth={})
    assert (found.target, found.get("x-consumer-username")) == (TARGET, "alice")
    assert found.get("x-credential-identifier") == "key"
    assert passed(people, "/", [("ApiKey", KEY)], key_auth={}).get("apikey") == KEY
    name, value = basic(f"alice:{PASSWORD}")
    assert passed(people, "/", [(name, value)], basic_auth={}).get("authorization") == value


def test_a_hidden_key_is_gone_from_where_it_stood(people: Proxied) -> None:
    hiding = {"hide_credentials": True}
    assert passed(people, TARGET, key_auth=hiding).target == "/a%2fb?z=%7e+1&a=&z"
    assert passed(people, f"/x?apikey={KEY}", key_auth=hiding).target == "/x"
    found = passed(people, "/x?apikey=of-the-service", [("ApiKey", KEY)], key_auth=hiding)
    assert (found.target, found.get("apikey")) == ("/x?apikey=of-the-service", None)
    found = passed(people, f"/x?apikey={KEY}&b", [("ApiKey", KEY)], key_auth=hiding)
    assert (found.target, found.get("apikey")) == ("/x?b", None)


def test_a_hidden_password_is_gone(people: Proxied) -> None:
    found = passed(people, "/", [basic(f"alice:{PASSWORD}"), ("x-a", "1")], basic_auth={"hide_credentials": True})
    assert (found.get("authorization"), found.get("x-a")) == (None, "1")
    assert (found.get("x-consumer-username"), found.get("x-credential-identifier")) == ("alice", "basic")


def test_a_key_on_the_consumer_itself_has_no_credential_id(people: Proxied) -> None:
    found = passed(people, "/?apikey=joe%27s+key+%26+more", [("X-Credential-Identifier", "forged")], key_auth={})
    assert (found.get("x-consumer-username"), found.get("x-credential-identifier")) == ("joe", None)


def test_the_anonymous_consumer_shows_nothing_of_what_was_tried(people: Proxied) -> None:
    config = {"anonymous_consumer": "guest", "hide_credentials": True}
    found = passed(people, "/?apikey=wrong&b=1", [("apikey", "wrong too")], key_auth=config)
    assert (found.target, found.get("apikey")) == ("/?b=1", None)
    assert (found.get("x-consumer-username"), found.get("x-anonymous-consumer")) == ("guest", "true")
    found = passed(people, "/", [basic("alice:wrong")], basic_auth=config)
    assert (found.get("authorization"), found.get("x-consumer-username")) == (None, "guest")


# --- several plugins ---


def test_key_and_password_must_both_hold_and_name_one_consumer(people: Proxied) -> None:
    with route(people, key_auth={}, basic_auth={}) as (host, upstream):
        password = basic(f"alice:{PASSWORD}")
        assert people.ask("GET", "/", host, [("apikey", KEY), password]).status == 200
        found = people.ask("GET", "/", host, [("apikey", KEY)])
        assert (found.status, found.body, found.get("www-authenticate")) == (401, MISSING_BASIC, 'Basic realm="basic"')
        found = people.ask("GET", "/", host, [password])
        assert (found.status, found.body, found.get("www-authenticate")) == (401, MISSING_KEY, 'apikey realm="key"')
        found = people.ask("GET", "/", host, [("apikey", "joe's key & more"), password])
        assert (found.status, found.json()) == (401, {"message": "the credentials name different consumers"})


def test_a_signature_covers_the_query_that_the_key_is_taken_from(people: Proxied) -> None:
    people.put(
        "/consumers/alice/credentials/hmac",
        {"plugins": {"hmac-auth": {"key_id": "alice-keyid", "secret_key": "alice-hmac-key"}}},
    )
    headers = signed("GET", TARGET, key_id="alice-keyid", secret="alice-hmac-key")
    wanted = {"signed_headers": ["@request-target", "date"]}
    found = passed(people, TARGET, list(headers.items()), hmac_auth=wanted, key_auth={"hide_credentials": True})
    assert (found.target, found.get("x-consumer-username")) == ("/a%2fb?z=%7e+1&a=&z", "alice")


# --- revocation ---


def test_a_revoked_key_is_refused_within_a_second(people: Proxied) -> None:
    people.put("/consumers/guest/credentials/k", {"plugins": {"key-auth": {"key": "to be revoked"}}})
    people.put("/consumers/guest/credentials/p", {"plugins": {"basic-auth": {"username": "g", "password": "p"}}})
    with (
        route(people, key_auth={}) as (by_key, upstream),
        route(people, basic_auth={}) as (by_password, other),
    ):

        def statuses() -> tuple[int, int]:
            key = people.ask("GET", "/", by_key, [("apikey", "to be revoked")])
            return key.status, people.ask("GET", "/", by_password, [basic("g:p")]).status

        assert statuses() == (200, 200)
        # A new key in place of the old one; the mask leaves the password.
        people.put("/consumers/guest/credentials/k", {"plugins": {"key-auth": {"key": "the next"}}})
        people.put(
            "/consumers/guest/credentials/p", {"plugins": {"basic-auth": {"username": "g", "password": "********"}}}
        )
        within(PROMISE, lambda: statuses() == (401, 200))
        assert people.ask("GET", "/", by_key, [("apikey", "the next")]).status == 200
        assert people.admin("DELETE", "/consumers/guest/credentials/p").status == 200
        within(PROMISE, lambda: statuses() == (401, 401))
        assert people.ask("GET", "/", by_password, [basic("g:p")]).body == WRONG_USER
        assert people.admin("DELETE", "/consumers/guest/credentials/k").status == 200
        within(PROMISE, lambda: people.ask("GET", "/", by_key, [("apikey", "the next")]).status == 401)


# --- what is kept ---


def test_logs_hold_no_key_and_no_password(people: Proxied) -> None:
    with route(people, key_auth={"expose_reason": True}, basic_auth={}) as (host, upstream):
        for target, headers in (
            (f"/?apikey={KEY}", [basic(f"alice:{PASSWORD}")]),
            (f"/?apikey={KEY}x", [basic(f"alice:{PASSWORD}")]),
            ("/", [("apikey", KEY), basic(f"alice:{PASSWORD}x")]),
        ):
            people.ask("GET", target, host, headers)
        within(10, lambda: len(people.access_lines(host)) == 3)
        assert [line["reason"] for line in people.access_lines(host)] == ["", "unknown_key", "wrong_password"]
        assert all("apikey" not in line["path"] for line in people.access_lines(host))
    text = people.log.read_text()
    for secret in (KEY, PASSWORD, *(basic(f"alice:{PASSWORD}{end}")[1][6:] for end in ("", "x"))):
        assert secret not in text
