"""The balancer: exact shares, priorities, what was tried, and state that outlives a snapshot."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import e
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.credential import Consumer
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.message import Message
from proxy.balancers import Balancer
from proxy.models import BALANCERS
from proxy.plan import Node, Upstream
from proxy.transport import Target


def node(name: str, weight: int = 1, priority: int = 0) -> Node:
    return Node(name, name, 80, weight, Target(name, 80), priority)


def upstream(*nodes: Node, id: str = "u") -> Upstream:
    return Upstream(id, nodes)


def chosen(balancer: Balancer, of: Upstream, times: int) -> list[str]:
    names = []
    for _ in range(times):
        found = balancer.choose(of)
        assert found is not None
        names.append(found.key)
    return names


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (5, 1, 1), (100, 1), (7, 2, 3, 4)])
def test_every_cycle_holds_each_node_as_often_as_its_weight(weights: tuple[int, ...]) -> None:
    of = upstream(*(node(str(number), weight) for number, weight in enumerate(weights)))
    balancer = Balancer()
    for _ in range(3):
        counts = Counter(chosen(balancer, of, sum(weights)))
        assert counts == {str(number): weight for number, weight in enumerate(weights)}


def test_equal_nodes_alternate() -> None:
    names = chosen(Balancer(), upstream(node("a"), node("b")), 10)
    assert all(one != other for one, other in pairwise(names))


def test_heavy_node_is_not_chosen_in_one_go() -> None:
    names = chosen(Balancer(), upstream(node("a", 5), node("b", 1), node("c", 1)), 7)
    assert "".join(names) == "aabacaa"


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_shares_are_exact_for_any_weights(weights: list[int]) -> None:
    of = upstream(*(node(str(number), weight) for number, weight in enumerate(weights)))
    balancer = Balancer()
    assert Counter(chosen(balancer, of, 2 * sum(weights))) == {str(n): 2 * w for n, w in enumerate(weights)}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-2, 2)), min_size=1, max_size=6), st.data())
def test_each_node_is_offered_once_and_better_ones_first(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    nodes = sorted(
        (node(str(number), weight, priority) for number, (weight, priority) in enumerate(shape)),
        key=lambda found: -found.priority,
    )
    of, balancer = upstream(*nodes), Balancer()
    for _ in range(data.draw(st.integers(0, 3))):
        balancer.choose(of)
    tried: list[str] = []
    priorities: list[int] = []
    while (found := balancer.choose(of, tried)) is not None:
        tried.append(found.key)
        priorities.append(found.priority)
    assert sorted(tried) == sorted(found.key for found in nodes)
    assert priorities == sorted(priorities, reverse=True)


def test_lower_priority_waits_until_all_better_ones_were_tried() -> None:
    of = upstream(node("a", 1, 10), node("b", 1, 10), node("c", 100, 0))
    balancer = Balancer()
    assert set(chosen(balancer, of, 20)) == {"a", "b"}
    found = balancer.choose(of, ["a"])
    assert found is not None and found.key == "b"
    found = balancer.choose(of, ["a", "b"])
    assert found is not None and found.key == "c"


def test_nothing_is_left() -> None:
    balancer = Balancer()
    assert balancer.choose(upstream()) is None
    assert balancer.choose(upstream(node("a")), ["a"]) is None
    assert balancer.choose(upstream(node("a"), node("b")), ["a", "b"]) is None


def test_new_snapshot_with_equal_nodes_goes_on_where_the_old_one_was() -> None:
    balancer = Balancer()
    first = chosen(balancer, upstream(node("a"), node("b"), node("c")), 2)
    then = chosen(balancer, upstream(node("a"), node("b"), node("c")), 1)
    assert sorted(first + then) == ["a", "b", "c"]


def test_changed_nodes_start_over() -> None:
    balancer = Balancer()
    chosen(balancer, upstream(node("a"), node("b")), 1)
    assert Counter(chosen(balancer, upstream(node("a", 3), node("b")), 4)) == {"a": 3, "b": 1}
    assert chosen(balancer, upstream(node("c"), node("d")), 2) == ["c", "d"]


def test_upstreams_do_not_share_a_rotation() -> None:
    balancer = Balancer()
    one, two = upstream(node("a"), node("b"), id="1"), upstream(node("a"), node("b"), id="2")
    assert [chosen(balancer, of, 1)[0] for of in (one, two, one, two)] == ["a", "a", "b", "b"]


def test_forgotten_upstream_starts_over() -> None:
    balancer = Balancer()
    of, other = upstream(node("a"), node("b")), upstream(node("a"), node("b"), id="other")
    chosen(balancer, of, 1)
    chosen(balancer, other, 1)
    balancer.forget(["other"])
    assert chosen(balancer, of, 1) == ["a"]
    assert chosen(balancer, other, 1) == ["b"]


# --- state across edits ---


def test_edited_weights_leave_the_rotation_where_it_was() -> None:
    balancer = Balancer()
    assert chosen(balancer, upstream(node("a", 2), node("b", 2)), 1) == ["a"]
    # It is b's turn, whatever both weigh now; and shares are exact from here on.
    names = chosen(balancer, upstream(node("a", 5), node("b", 5)), 10)
    assert names[0] == "b" and Counter(names) == {"a": 5, "b": 5}


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 50))
def test_no_edit_starves_or_floods_a_node(before: int, after: int, times: int) -> None:
    balancer = Balancer()
    chosen(balancer, upstream(node("a", before), node("b")), times)
    counts = Counter(chosen(balancer, upstream(node("a", after), node("b", after)), 20))
    assert all(9 <= counts[name] <= 11 for name in "ab")


def test_node_without_traffic_next_to_others_is_none() -> None:
    """3:0:1, as `compile` hands it over: nothing for the middle one."""
    of = upstream(node("a", 3), node("c", 1))
    assert Counter(chosen(Balancer(), of, 12)) == {"a": 9, "c": 3}


# --- least_conn ---


def least_conn(*nodes: Node) -> Upstream:
    return Upstream("u", nodes, type="least_conn")


def taken(balancer: Balancer, of: Upstream, times: int) -> list[Node]:
    found = [balancer.choose(of) for _ in range(times)]
    return [one for one in found if one is not None]


def test_least_conn_fills_nodes_in_proportion_to_their_weights() -> None:
    of = least_conn(node("a", 3), node("b", 1))
    # (active + 1) / weight: a 1/3, 2/3, then 3/3 for both.
    found = taken(Balancer(), of, 12)
    assert Counter(one.key for one in found) == {"a": 9, "b": 3}
    assert [one.key for one in found[:2]] == ["a", "a"]


def test_least_conn_goes_where_something_ended() -> None:
    balancer, of = Balancer(), least_conn(node("a"), node("b"), node("c"))
    taken(balancer, of, 9)
    balancer.done(of, of.nodes[1], None)
    balancer.done(of, of.nodes[1], 0.5)
    assert [one.key for one in taken(balancer, of, 2)] == ["b", "b"]


def test_least_conn_lets_idle_nodes_take_turns() -> None:
    balancer, of = Balancer(), least_conn(node("a"), node("b"), node("c"))
    names = []
    for _ in range(9):
        (found,) = taken(balancer, of, 1)
        balancer.done(of, found, 0.0)
        names.append(found.key)
    assert Counter(names) == {"a": 3, "b": 3, "c": 3}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1)), min_size=2, max_size=5),
    st.lists(st.integers(0, 5), max_size=40),
)
def test_least_conn_takes_the_least_load_of_the_best_priority(shape: list[tuple[int, int]], ends: list[int]) -> None:
    nodes = [node(str(number), *pair) for number, pair in enumerate(shape)]
    of = least_conn(*sorted(nodes, key=lambda found: -found.priority))
    balancer, under_way = Balancer(), Counter[str]()
    for end in ends:
        (found,) = taken(balancer, of, 1)
        best = [one for one in of.nodes if one.priority == of.nodes[0].priority]
        assert found in best
        loads = {one.key: Fraction(under_way[one.key] + 1, one.weight) for one in best}
        assert loads[found.key] == min(loads.values())
        under_way[found.key] += 1
        leaving = best[end % len(best)]
        if under_way[leaving.key]:
            under_way[leaving.key] -= 1
            balancer.done(of, leaving, None)


def test_edit_of_weights_and_nodes_keeps_what_is_under_way() -> None:
    balancer, before = Balancer(), least_conn(node("a"), node("b"), node("c"))
    taken(balancer, before, 6)
    after = least_conn(node("a", 4), node("b"), node("d"))
    # Each of the old ones has two: a 3/4 and 4/4, b 3/1; d 1/1.
    first, *others = (one.key for one in taken(balancer, after, 3))
    assert first == "a" and sorted(others) == ["a", "d"]
    # What started on a node that is gone ends without harm, and counts for nobody.
    balancer.done(before, before.nodes[2], 1.0)
    balancer.done(before, before.nodes[2], 1.0)
    state = balancer._states["u"]
    assert "c" not in state.active and set(state.current) == {"a", "b", "d"}


def test_node_that_comes_back_is_as_busy_as_it_was() -> None:
    balancer, both = Balancer(), least_conn(node("a"), node("b"))
    taken(balancer, both, 4)
    other = least_conn(node("a"), node("c"))
    for found in taken(balancer, other, 2):
        balancer.done(other, found, None)
    balancer.done(both, both.nodes[0], None)
    # a has one, b still two.
    assert [one.key for one in taken(balancer, both, 1)] == ["a"]


def test_retry_of_least_conn_and_ewma_goes_on_to_other_nodes() -> None:
    for kind in ("least_conn", "ewma", "chash"):
        of = Upstream("u", (node("a", 1, 1), node("b", 1, 1), node("c")), type=kind)
        balancer, tried = Balancer(), list[str]()
        while (found := balancer.choose(of, tried, message())) is not None:
            balancer.done(of, found, None)
            tried.append(found.key)
        assert sorted(tried[:2]) == ["a", "b"] and tried[2:] == ["c"]
        assert balancer.choose(Upstream("e", (), type=kind), (), message()) is None


def test_end_after_the_upstream_was_forgotten_is_harmless() -> None:
    balancer, of = Balancer(), least_conn(node("a"), node("b"))
    (found,) = taken(balancer, of, 1)
    balancer.forget([])
    balancer.done(of, found, 1.0)
    assert balancer._states == {}
    taken(balancer, of, 1)
    for _ in range(3):
        balancer.done(of, found, 1.0)
    assert all(count > 0 for count in balancer._states["u"].active.values())


def test_only_what_is_measured_needs_to_be_given_back() -> None:
    two = (node("a"), node("b"))
    measured = {kind: Upstream("u", two, type=kind).measured for kind in BALANCERS}
    assert measured == {"roundrobin": False, "chash": False, "least_conn": True, "ewma": True}
    assert not any(Upstream("u", two[:1], type=kind).measured for kind in BALANCERS)


# --- ewma ---


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ewma(*names: str) -> Upstream:
    return Upstream("u", tuple(map(node, names)), type="ewma")


def test_ewma_prefers_the_faster_of_two() -> None:
    balancer, of = Balancer(Clock()), ewma("slow", "fast")
    balancer.choose(of)
    balancer.done(of, of.nodes[0], 0.2)
    balancer.done(of, of.nodes[1], 0.1)
    assert set(chosen(balancer, of, 20)) == {"fast"}


def test_ewma_decays_in_ten_seconds() -> None:
    clock = Clock()
    balancer, of = Balancer(clock), ewma("a", "b")
    balancer.choose(of)
    balancer.done(of, of.nodes[0], 1.0)
    clock.now += 10
    balancer.done(of, of.nodes[0], 3.0)
    # 1 of 10 s ago has a say of 1/e, what is measured now has the rest.
    value, written = balancer._states["u"].times["a"]
    assert value == pytest.approx(1 / e + 3 * (1 - 1 / e)) and written == clock.now


def test_ewma_looks_again_at_a_node_that_was_slow_long_ago() -> None:
    clock = Clock()
    balancer, of = Balancer(clock), ewma("a", "b")
    balancer.choose(of)
    balancer.done(of, of.nodes[0], 1.0)
    clock.now += 60
    balancer.done(of, of.nodes[1], 0.1)
    assert set(chosen(balancer, of, 20)) == {"a"}


def test_ewma_learns_nothing_from_failures() -> None:
    balancer, of = Balancer(Clock()), ewma("a", "b")
    balancer.choose(of)
    balancer.done(of, of.nodes[0], None)
    assert balancer._states["u"].times == {}


def test_ewma_draws_each_pair_alike() -> None:
    balancer, of = Balancer(Clock(), Random(1).random), ewma("a", "b", "c", "d")
    balancer.choose(of)
    for place, one in enumerate(of.nodes):
        balancer.done(of, one, float(place + 1))
    counts = Counter(chosen(balancer, of, 6000))
    # Of the six pairs a wins three, b two, c one.
    assert all(abs(counts[name] - share * 1000) < 150 for name, share in zip("abcd", (3, 2, 1, 0), strict=True))


def test_ewma_keeps_what_it_knows_when_weights_are_edited() -> None:
    balancer, of = Balancer(Clock()), ewma("a", "b", "c")
    balancer.choose(of)
    for one in of.nodes:
        balancer.done(of, one, 0.1)
    balancer.choose(Upstream("u", (node("a", 7), node("b")), type="ewma"))
    assert set(balancer._states["u"].times) == {"a", "b"}


# --- chash ---


def message(uri: str = "/", headers: dict[str, str] | None = None, remote: str = "192.0.2.1") -> Message:
    return Message("GET", uri, headers or {"host": "h.test"}, remote_addr=remote)


def chash(*nodes: Node, hash_on: str = "", key: str = "uri") -> Upstream:
    return Upstream("u", nodes, type="chash", hash_on=hash_on, key=key)


def test_chash_sends_the_same_key_to_the_same_node() -> None:
    of = chash(node("a"), node("b"), node("c"))
    one, other = Balancer(), Balancer()
    found = [one.choose(of, (), message(f"/{number}")) for number in range(100)]
    assert found == [other.choose(of, (), message(f"/{number}")) for number in reversed(range(100))][::-1]
    assert {one.key for one in found if one} == {"a", "b", "c"}


def test_chash_reads_its_key_anew_when_it_is_edited() -> None:
    balancer, nodes = Balancer(), (node("a"), node("b"))
    by_uri = {balancer.choose(chash(*nodes), (), message(f"/{number}")) for number in range(50)}
    by_peer = {balancer.choose(chash(*nodes, key="remote_addr"), (), message(f"/{number}")) for number in range(50)}
    assert (len(by_uri), len(by_peer)) == (2, 1)


def test_chash_over_a_consumer() -> None:
    balancer, of = Balancer(), chash(node("a"), node("b"), hash_on="consumer", key="")
    identities = [Identity(Consumer(str(number), f"user-{number}")) for number in range(50)]
    found = [balancer.choose(of, (), message(), identity) for identity in identities]
    assert len(set(found)) == 2
    assert found == [balancer.choose(of, (), message(remote="192.0.2.9"), identity) for identity in identities]
