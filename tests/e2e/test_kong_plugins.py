"""Kong's plugins, configured over Kong's admin API and asked through both lanes: who passes, and what upstreams see."""

from __future__ import annotations

import base64
import hmac
import json
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import httpie_kong_hmac
import requests

from tests.e2e.test_kong_routing import Kong, beside, kong, name
from tests.support.proxied import OK, Seen, Upstream, seen
from tests.support.raw_client import Headers, RawAnswer
from tests.support.raw_upstream import answer
from tests.support.tokens import token

__all__ = ["beside", "kong", "name"]
TOLD = ("x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier")
FORGED: Headers = [(name, "forged") for name in (*TOLD, "x-consumer-groups", "x-anonymous-consumer")]


class Scene:
    """A service whose upstream says OK, with plugins, and people."""

    def __init__(self, kong: Kong, name: str, port: int, **plugins: Any) -> None:
        self.kong, self.name = kong, name
        kong.admin("POST", "/services", name=name, host="127.0.0.1", port=port)
        for plugin, config in plugins.items():
            kong.admin("POST", f"/services/{name}/plugins", name=plugin.replace("_", "-"), config=config)
        self.host = f"{name}.test"

    def person(self, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.kong.admin("POST", "/consumers", **{"username": self.name, **more})
        return found

    def open(self) -> None:
        self.kong.route(self.name, hosts=[self.host], paths=["/"])

    def ask(self, target: str = "/x", headers: Headers = (), method: str = "GET") -> RawAnswer:
        return self.kong.ask(target, self.host, method, headers)


def signature(user: str, secret: str, target: str, embedded: bool) -> Headers:
    """Kong's, over date and target as sent, with plain `hmac`."""
    sent = "/gw" + target if embedded else target
    date = formatdate(time.time(), usegmt=True)
    string = f"date: {date}\n@request-target: get {sent}"
    mac = base64.b64encode(hmac.digest(secret.encode(), string.encode(), "sha256")).decode()
    fields = f'username="{user}", algorithm="hmac-sha256", headers="date @request-target"'
    return [("Date", date), ("Authorization", f'hmac {fields}, signature="{mac}"')]


def received(upstream: Upstream) -> list[Seen]:
    """All requests that an upstream got; none has a body."""
    heads = [piece for peer in upstream.peers for piece in peer.received.split(b"\r\n\r\n") if piece]
    return [seen(SimpleNamespace(received=piece)) for piece in heads]  # type: ignore[arg-type]


def told(found: Seen) -> dict[str, str]:
    return {key: value for key, value in found.headers if key.startswith(("x-consumer", "x-cred", "x-anonymous"))}


def words(found: RawAnswer) -> tuple[int, str]:
    return found.status, json.loads(found.body)["message"]


def test_a_signature_says_who_calls(kong: Kong, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        scene = Scene(kong, name, upstream.port, hmac_auth={"enforce_headers": ["date", "@request-target"]})
        person = scene.person(custom_id=f"c-{name}")
        kong.admin("POST", f"/consumers/{name}/hmac-auth", username=f"u-{name}", secret="s3cret")
        scene.open()
        assert words(scene.ask()) == (401, "Unauthorized")
        assert dict(scene.ask().headers)["www-authenticate"] == "hmac"
        own = signature(f"u-{name}", "s3cret", "/x?a=%2F", kong._beside is not None)
        found = scene.ask("/x?a=%2F", [*own, *FORGED])
        assert found.status == 200
        at_upstream = seen(upstream.peer())
        plain = scene.ask("/x", [("X-A", "1")])
        assert plain.status == 401
    assert told(at_upstream) == {
        "x-consumer-id": person["id"],
        "x-consumer-username": name,
        "x-consumer-custom-id": f"c-{name}",
        "x-credential-identifier": f"u-{name}",
    }
    assert at_upstream.get("authorization") == dict(own)["Authorization"]


def test_httpie_kong_hmac_is_let_in(kong: Kong, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        scene = Scene(kong, name, upstream.port, hmac_auth={"validate_request_body": True})
        scene.person()
        kong.admin("POST", f"/consumers/{name}/hmac-auth", username=name, secret="s3cret")
        scene.open()
        prefix = "/gw" if kong._beside is not None else ""
        port = kong._beside.port if kong._beside is not None else kong.gateway.port
        for body in (None, '{"quantity": 3}'):
            auth = httpie_kong_hmac.KongHMAC(name, "s3cret", headers=["request-line", "date"])
            with requests.Session() as session:
                session.trust_env = False
                found = session.request(
                    "POST" if body else "GET",
                    f"http://127.0.0.1:{port}{prefix}/orders?x=%20",
                    data=body,
                    headers={"Host": scene.host},
                    auth=auth,
                    timeout=10,
                )
            assert found.status_code == 200, found.text


def test_one_of_several_or_the_guest_and_groups_decide(kong: Kong, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        kong.admin("POST", "/consumers", username=f"guest-{name}", custom_id=f"g-{name}")
        guest = kong.admin("GET", f"/consumers/guest-{name}")
        scene = Scene(
            kong,
            name,
            upstream.port,
            key_auth={"anonymous": guest["id"], "hide_credentials": True},
            jwt={"anonymous": f"guest-{name}"},
            acl={"allow": ["gold", "public"]},
        )
        scene.person()
        key = kong.admin("POST", f"/consumers/{name}/key-auth", key=f"k-{name}")
        secret = "0123456789abcdef0123456789abcdef"
        kong.admin("POST", f"/consumers/{name}/jwt", key=f"j-{name}", secret=secret)
        scene.open()
        made = token("HS256", {"iss": f"j-{name}", "exp": int(time.time()) + 60}, None, secret.encode())
        assert words(scene.ask(headers=[("apikey", f"k-{name}")])) == (403, "You cannot consume this service")
        assert words(scene.ask()) == (403, "You cannot consume this service")
        for group in ("gold", "eu"):
            kong.admin("POST", f"/consumers/{name}/acls", group=group)
        kong.admin("POST", f"/consumers/guest-{name}/acls", group="public")
        kong.gateway.enforce()
        for headers in ([("apikey", f"k-{name}")], [("Authorization", f"Bearer {made}")], [("apikey", "nobody")]):
            assert scene.ask(headers=[*headers, *FORGED]).status == 200
        by_key, by_token, anonymous = received(upstream)
    assert by_key.get("apikey") is None
    mine = {"x-consumer-username": name, "x-consumer-groups": "eu, gold"}
    assert told(by_key).items() >= {**mine, "x-credential-identifier": key["id"]}.items()
    assert told(by_token).items() >= {**mine, "x-credential-identifier": f"j-{name}"}.items()
    assert told(anonymous) == {
        "x-consumer-id": guest["id"],
        "x-consumer-username": f"guest-{name}",
        "x-consumer-custom-id": f"g-{name}",
        "x-consumer-groups": "public",
        "x-anonymous-consumer": "true",
    }


def test_limits(kong: Kong, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        scene = Scene(kong, name, upstream.port, rate_limiting={"hour": 2, "year": 100, "limit_by": "ip"})
        scene.open()
        first, second, third = (scene.ask() for _ in range(3))
        plain = scene.ask(headers=[("Accept", "text/plain")])
    assert [found.status for found in (first, second, third)] == [200, 200, 429]
    assert dict(first.headers)["x-ratelimit-remaining-hour"] == "1"
    last = dict(third.headers)
    assert (last["x-ratelimit-limit-hour"], last["x-ratelimit-remaining-hour"]) == ("2", "0")
    assert (last["x-ratelimit-remaining-year"], last["ratelimit-limit"]) == ("98", "2")
    assert 0 < int(last["retry-after"]) == int(last["ratelimit-reset"]) <= 3600
    assert words(third) == (429, "API rate limit exceeded")
    assert plain.body.startswith(b"API rate limit exceeded\nrequest_id: ")


def test_proxy_authorization_and_hidden_credentials(kong: Kong, name: str) -> None:
    with Upstream(answer(OK)) as upstream:
        scene = Scene(kong, name, upstream.port, hmac_auth={"hide_credentials": True})
        scene.person()
        kong.admin("POST", f"/consumers/{name}/hmac-auth", username=name, secret="s3cret")
        scene.open()
        date, own = signature(name, "s3cret", "/x", kong._beside is not None)
        proxied = ("Proxy-Authorization", own[1])
        assert scene.ask(headers=[date, proxied, ("Authorization", "Bearer upstreams")]).status == 200
        assert scene.ask(headers=[date, own]).status == 200
        kept, hidden = received(upstream)
    assert (kept.get("authorization"), kept.get("proxy-authorization")) == ("Bearer upstreams", None)
    assert hidden.get("authorization") is None
