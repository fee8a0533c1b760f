"""A route with hmacproxy's scheme in a served gateway, its requests signed by the command and by hand."""

from __future__ import annotations

import pytest

from tests.support.hmacproxied import Hmacproxy, sign
from tests.support.proxied import OK, Proxied, Upstream, seen, wait_for
from tests.support.raw_client import request_bytes
from tests.support.raw_upstream import Peer, answer

SECRET = "my-hmac-secret"
PLUGIN = {"scheme": "hmacproxy", "key_ids": ["client-1", "nobody"], "headers": ["X-Tenant", "Content-Length"]}
BODY = b"x" * 1_500_000  # more than the gateway keeps in memory


def swallow(peer: Peer) -> None:
    """Take one request with a body as long as it says, and answer."""
    head = peer.read_head()
    length = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    peer.read(int(length[0]) if length else 0)
    peer.send(OK)
    peer.wait_closed()


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("POST", b""), ("POST", BODY)], ids=["GET", "empty", "body"]
)
def test_what_the_command_signs_the_gateway_accepts(gateway: Proxied, method: str, body: bytes | None) -> None:
    arguments = ("-upstream", f"http://127.0.0.1:{gateway.port}", "-headers", "X-Tenant,Content-Length")
    with Upstream(swallow) as upstream, Hmacproxy(*arguments, secret=SECRET) as proxy:
        host = gateway.lead(upstream.port, plugin={**PLUGIN, "hide_credentials": True})
        assert gateway.ask(method, "/a%20b?c", host, [("X-Tenant", "7")], body).status == 401
        assert proxy.ask(method, "/a%20b?c", [("X-Tenant", "7")], body, host=host).status == 200
        got = seen(upstream.peer())
        assert (got.target, got.body) == ("/a%20b?c", body or b"")
        assert (got.get("x-consumer-username"), got.get("x-consumer-custom-id")) == ("hmac-auth-consumer", "c-7")
        assert got.get("x-signature") is None
        # A signed length that was absent stays absent.
        assert got.get("content-length") == (None if body is None else str(len(body)))


def test_nothing_of_a_wrong_body_reaches_the_upstream(gateway: Proxied) -> None:
    with Upstream(answer(OK)) as upstream:
        host = gateway.lead(upstream.port, plugin={**PLUGIN, "headers": [], "max_req_body_size": 2_000_000})
        signature = sign("POST\n/a\n", BODY, secret=SECRET)
        for body, status in ((BODY[:-1] + b"y", 401), (BODY[:-1], 401), (b"", 401), (BODY * 2, 413)):
            refused = gateway.ask("POST", "/a", host, [signature], body)
            assert refused.status == status
            assert refused.get("www-authenticate") == ('hmac realm="hmac"' if status == 401 else None)
        with gateway.client() as client:
            client.send(request_bytes("POST", "/a", host, [signature, ("Content-Length", str(len(BODY)))]) + BODY[:9])
            client.reset()
        # In no order: what the client of a 413 still sends is read before its line is written.
        wait_for(lambda: len(gateway.access_lines(host)) == 5)
        assert not upstream.peers
        lines = gateway.access_lines(host)
        reasons = sorted((line["status"], line["reason"]) for line in lines)
        assert reasons == [(401, "signature_mismatch")] * 3 + [(413, "body_too_large"), (499, "")]
        # Whoever was not proven to have signed is not named.
        assert {line["consumer"] for line in lines} == {""}
        assert gateway.ask("POST", "/a", host, [signature], BODY).status == 200
        wait_for(lambda: "hmac-auth-consumer" in [line["consumer"] for line in gateway.access_lines(host)])


def test_configurations_that_mean_nothing_are_refused(gateway: Proxied) -> None:
    for config, words in (
        ({"scheme": "hmacproxy"}, "key_id"),
        ({**PLUGIN, "signed_headers": ["date"]}, "signed_headers"),
        ({"scheme": "apisix", "sign_header": "X-Signature"}, "sign_header"),
    ):
        body = {
            "uri": "/never",
            "plugins": {"hmac-auth": config},
            "upstream": {"type": "roundrobin", "nodes": {"h:1": 1}},
        }
        refused = gateway.admin("PUT", "/routes/never", body)
        assert refused.status == 400 and words in refused.body.decode(), refused
