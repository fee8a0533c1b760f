"""Replay protection across two workers: of equal signed requests one passes, whichever worker gets which."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.load import raw, storm
from tests.support.nodes import Node
from tests.support.served import Served, digest_of, free_port, signed

LISTED = ("@request-target", "date", "digest")
BODY = b'{"amount": 100}'
PLUGIN = {"replay_protection": True, "validate_request_body": True}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as upstream:
        yield upstream


def serve(node: Node, store: str) -> Served:
    return Served(workers=2, environment={"HMAC_GATEWAY_REPLAY_STORE": store})


@pytest.fixture(scope="module", params=["redis", "database"])
def gateway(request: pytest.FixtureRequest, node: Node) -> Iterator[Served]:
    store = request.getfixturevalue("redis_url") if request.param == "redis" else "database"
    with serve(node, store) as served:
        served.setup(node.address, plugin=PLUGIN)
        yield served


def post(target: str, nonce: str = "") -> bytes:
    """A signed POST; with a nonce it is signed as well."""
    headers = {"digest": digest_of(BODY)}
    listed: tuple[str, ...] = LISTED
    if nonce:
        headers["x-nonce"] = nonce
        listed = (*LISTED, "x-nonce")
    return raw("POST", target, signed("POST", target, listed=listed, headers=headers), BODY)


def test_of_two_hundred_copies_at_once_exactly_one_passes(gateway: Served, node: Node) -> None:
    while node.began.acquire(blocking=False):
        pass
    answered = storm(gateway.port, [post("/copies")] * 200)
    said = [line for line in gateway.log.read_text().splitlines() if not line.startswith("{")]
    assert answered == {200: 1, 401: 199}, said
    assert node.began.acquire(blocking=False)
    assert not node.began.acquire(blocking=False), "the upstream got one"
    assert storm(gateway.port, [post("/copies?later=1")] * 20) == {200: 1, 401: 19}


def test_a_signed_nonce_makes_equal_requests_distinct(gateway: Served) -> None:
    different = [post("/nonce", f"{number:032x}") for number in range(40)]
    assert storm(gateway.port, different) == {200: 40}
    assert storm(gateway.port, different) == {401: 40}


def test_a_wrong_body_does_not_burn_the_mark(gateway: Served) -> None:
    right = post("/burn")
    wrong = right.removesuffix(BODY) + BODY.replace(b"1", b"9")
    assert storm(gateway.port, [wrong] * 10) == {401: 10}
    assert storm(gateway.port, [right]) == {200: 1}
    assert storm(gateway.port, [right, wrong]) == {401: 2}


def test_another_secret_does_not_burn_the_mark(gateway: Served) -> None:
    right = post("/forged")
    headers = signed("POST", "/forged", listed=LISTED, headers={"digest": digest_of(BODY)}, secret="guessed")
    assert storm(gateway.port, [raw("POST", "/forged", headers, BODY)] * 5) == {401: 5}
    assert storm(gateway.port, [right]) == {200: 1}


def test_equal_gets_in_one_second_are_alike(gateway: Served) -> None:
    headers = signed("GET", "/read", listed=LISTED, headers={"digest": digest_of(b"")})
    assert storm(gateway.port, [raw("GET", "/read", headers)] * 10) == {200: 10}


def test_stores_that_cannot_say_refuse_rather_than_let_one_pass_each(node: Node) -> None:
    def refused(target: str) -> None:
        headers = signed("POST", target, listed=LISTED, headers={"digest": digest_of(BODY)})
        answer = served.get(target, headers, "POST", body=BODY)
        assert answer.status == 503
        assert set(answer.json()) == {"message"}
        assert "redis" not in answer.body.decode().lower()
        assert storm(served.port, [post(f"{target}?2")] * 20) == {503: 20}
        # Nothing is asked of the store for a method that is not protected.
        headers = signed("GET", target, listed=LISTED, headers={"digest": digest_of(b"")})
        assert storm(served.port, [raw("GET", target, headers)]) == {200: 1}

    with serve(node, "memory") as served:
        served.setup(node.address, plugin=PLUGIN)
        refused("/two-workers-share-no-memory")
        assert served.stop() == 0
        served.environment["HMAC_GATEWAY_REPLAY_STORE"] = f"redis://:not-to-be-shown@127.0.0.1:{free_port()}/0"
        served.start()
        refused("/redis-is-away")
        served.stop()
        log = served.log.read_text()
        assert "the Redis replay store failed: ConnectionError" in log
        assert "not-to-be-shown" not in log
