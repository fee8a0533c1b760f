"""Consistent hashing: what a request's text is, shares, and what moves when nodes come and go."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.identity import NOBODY, Identity
from hmac_gateway.core.message import Message
from hmac_gateway.routing_kong import Path
from proxy.exchange import Target
from proxy.hashing import SLOTS, Slots, newcomer, reader
from proxy.plan import Node, Upstream

TEXTS = [f"key-{number}" for number in range(300)]
REMOTE = "192.0.2.1"
CALLER = Identity(Consumer("id-1", "alice"))


def node(name: str, weight: int = 1, priority: int = 0) -> Node:
    return Node(name, name, 80, weight, Target(name, 80), priority)


def owners(*nodes: Node) -> dict[str, str]:
    slots = Slots(nodes)
    return {text: found.key for text in TEXTS if (found := slots.node(text)) is not None}


# --- the text ---

HEADERS = {"host": "Shop.Test:8080", "x-session-id": "s-1", "cookie": "sid=one; x=2; sid=two"}


@pytest.mark.parametrize(
    ("hash_on", "key", "text"),
    [
        ("", "uri", "/a b"),
        ("vars", "uri", "/a b"),
        ("vars", "request_uri", "/a%20b?x=1&y="),
        ("vars", "query_string", "x=1&y="),
        ("vars", "host", "shop.test"),
        ("vars", "remote_addr", REMOTE),
        ("vars", "arg_x", "1"),
        ("header", "X-Session-Id", "s-1"),
        ("header", "x_session_id", "s-1"),
        ("cookie", "sid", "two"),
        ("cookie", "x", "2"),
        ("consumer", "", "alice"),
        ("vars_combinations", "$arg_x$uri", "1/a b"),
        ("vars_combinations", "${arg_x}-$http_x_session_id!", "1-s-1!"),
        ("vars_combinations", "$arg_none-$arg_x", "-1"),
        ("ip", "", REMOTE),
        ("path", "", "/a b"),
        ("query_arg", "x", "1"),
        # Nothing there: the remote address.
        ("vars", "arg_none", REMOTE),
        ("vars", "arg_y", REMOTE),
        ("vars", "server_addr", REMOTE),
        ("vars", "remote_port", REMOTE),
        ("vars", "no such variable", REMOTE),
        ("header", "x-none", REMOTE),
        ("cookie", "none", REMOTE),
        ("vars_combinations", "a$arg_none", REMOTE),
        ("vars_combinations", "constant", REMOTE),
        ("none", "", REMOTE),
        ("uri_capture", "x", REMOTE),
    ],
)
def test_text_of_a_request(hash_on: str, key: str, text: str) -> None:
    message = Message("GET", "/a%20b?x=1&y=", HEADERS, remote_addr=REMOTE)
    assert reader(hash_on, key)(message, CALLER) == text


CAPTURES = Path.of(r"~/(?<kind>[a-z]) (.)")


@pytest.mark.parametrize(
    ("hash_on", "key", "fallback", "text"),
    [
        ("ip", "", ("none", ""), REMOTE),
        ("header", "X-Session-Id", ("ip", ""), "s-1"),
        ("header", "x-none", ("cookie", "sid"), "two"),
        ("cookie", "none", ("none", ""), None),
        ("query_arg", "none", ("path", ""), "/a b"),
        ("query_arg", "x", ("path", ""), "1"),
        ("consumer", "", ("ip", ""), "alice"),
        ("none", "", ("none", ""), None),
        ("uri_capture", "kind", ("none", ""), "a"),
        ("uri_capture", "2", ("none", ""), "b"),
        ("uri_capture", "3", ("ip", ""), REMOTE),
        ("uri_capture", "0", ("ip", ""), REMOTE),
        ("uri_capture", "other", ("uri_capture", "1"), "a"),
    ],
)
def test_text_of_a_request_as_kong_takes_it(
    hash_on: str, key: str, fallback: tuple[str, str], text: str | None
) -> None:
    message = Message("GET", "/a%20b?x=1&y=", HEADERS, remote_addr=REMOTE)
    read = reader(hash_on, key, fallback, CAPTURES)
    if text is None:  # chance
        assert len({read(message, CALLER) for _ in range(9)}) == 9
    else:
        assert read(message, CALLER) == text


def test_a_path_without_groups_captures_nothing() -> None:
    message = Message("GET", "/a%20b", HEADERS, remote_addr=REMOTE)
    for captures in (None, Path.of("/a"), Path.of("~/x(.)")):
        assert reader("uri_capture", "1", ("ip", ""), captures)(message, CALLER) == REMOTE


@pytest.mark.parametrize(
    ("hash_on", "key", "fallback", "headers", "given"),
    [
        ("cookie", "seat", ("none", ""), {}, True),
        ("cookie", "seat", ("none", ""), {"cookie": "x=1; seat=7"}, False),
        ("header", "x-id", ("cookie", "seat"), {"x-id": "3"}, False),
        ("header", "x-id", ("cookie", "seat"), {}, True),
        ("header", "x-id", ("cookie", "seat"), {"cookie": "seat=7"}, False),
    ],
)
def test_who_comes_without_the_cookie_gets_it(
    hash_on: str, key: str, fallback: tuple[str, str], headers: dict[str, str], given: bool
) -> None:
    upstream = Upstream("u", (), type="chash", hash_on=hash_on, key=key, fallback=fallback, cookie=("seat", "/p"))
    message = Message("GET", "/", headers.items())
    seen, line = newcomer(upstream, message, NOBODY)
    assert bool(line) is given and (seen is message) is not given
    if given:
        made = line.removeprefix("seat=").removesuffix("; Path=/p; HttpOnly")
        assert str(UUID(made)) == made
        assert reader(hash_on, key, fallback)(seen, NOBODY) == made
        # The next request finds the same.
        again = Message("GET", "/", [("cookie", f"seat={made}")])
        assert reader(hash_on, key, fallback)(again, NOBODY) == made


def test_nobody_is_known_by_the_address() -> None:
    message = Message("GET", "/", HEADERS, remote_addr=REMOTE)
    assert reader("consumer", "")(message, NOBODY) == REMOTE
    assert reader("consumer", "")(message, Identity(Consumer("id-1", ""))) == "id-1"


@given(st.sampled_from(["", "header", "cookie", "vars_combinations", "query_arg", "x"]), st.text(), st.text())
def test_no_key_and_no_request_make_it_fail(hash_on: str, key: str, value: str) -> None:
    target = "/" + value.encode("utf-8", "surrogatepass").decode("latin-1")
    message = Message("GET", target, {"cookie": value, "x": value}, remote_addr=REMOTE)
    Slots((node("a"), node("b"))).node(reader(hash_on, key)(message, NOBODY))


# --- shares ---


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 3, 4), (100, 1)])
def test_shares_follow_weights(weights: tuple[int, ...]) -> None:
    slots = Slots([node(str(number), weight) for number, weight in enumerate(weights)])
    texts = 20_000
    counts = Counter(found.key for number in range(texts) if (found := slots.node(f"t{number}")) is not None)
    for number, weight in enumerate(weights):
        share = texts * weight / sum(weights)
        assert abs(counts[str(number)] - share) < 0.05 * share + 60


def test_each_slot_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    from proxy import hashing

    real = hashing._owner

    def owner(slot: int, nodes: Any) -> int:
        asked.append(slot)
        return real(slot, nodes)

    monkeypatch.setattr(hashing, "_owner", owner)
    slots = Slots((node("a"), node("b")))
    for _ in range(3):
        for text in TEXTS:
            slots.node(text)
    assert len(asked) == len(set(asked)) <= len(TEXTS) < SLOTS


# --- what moves ---

NODES = st.lists(
    st.tuples(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 1000)),
    min_size=2,
    max_size=6,
    unique_by=lambda pair: pair[0],
)


@settings(max_examples=25, deadline=None)
@given(NODES, st.data())
def test_node_that_goes_moves_its_own_texts_only(shape: list[tuple[str, int]], data: st.DataObject) -> None:
    nodes = [node(*pair) for pair in shape]
    gone = data.draw(st.sampled_from(nodes))
    before, after = owners(*nodes), owners(*(one for one in nodes if one is not gone))
    assert all(after[text] == owner for text, owner in before.items() if owner != gone.key)
    # They go where a retry would have gone.
    slots = Slots(nodes)
    for text, owner in before.items():
        if owner == gone.key:
            assert (found := slots.node(text, [gone.key])) is not None and found.key == after[text]


@settings(max_examples=25, deadline=None)
@given(NODES, st.integers(1, 1000), st.data())
def test_edited_weight_moves_texts_from_or_to_that_node_only(
    shape: list[tuple[str, int]], weight: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(shape) - 1))
    name, old = shape[place]
    before = owners(*(node(*pair) for pair in shape))
    after = owners(*(node(*pair) for pair in [*shape[:place], (name, weight), *shape[place + 1 :]]))
    moved = [text for text in TEXTS if before[text] != after[text]]
    assert all((after if weight > old else before)[text] == name for text in moved)


@settings(max_examples=25, deadline=None)
@given(NODES, st.randoms())
def test_order_of_nodes_means_nothing(shape: list[tuple[str, int]], shuffle: Any) -> None:
    nodes = [node(*pair) for pair in shape]
    before = owners(*nodes)
    shuffle.shuffle(nodes)
    assert owners(*nodes) == before


def test_retries_offer_every_node_once_and_lower_priorities_last() -> None:
    slots = Slots((node("a", 1, 1), node("b", 5, 1), node("c", 100), node("d", 1)))
    for text in TEXTS[:50]:
        tried: list[str] = []
        while (found := slots.node(text, tried)) is not None:
            tried.append(found.key)
        assert sorted(tried[:2]) == ["a", "b"] and sorted(tried[2:]) == ["c", "d"]


def test_no_nodes() -> None:
    assert Slots(()).node("x") is None
    assert Slots(()).node("x", ["a"]) is None
