"""The balancer: exact shares, priorities, what was tried, and state that outlives a snapshot."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balancers import Balancer
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
