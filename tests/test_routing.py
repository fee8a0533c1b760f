"""routing: host, then path, then priority, as APISIX's default router; compared with a plain search."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.message import Message
from hmac_gateway.routing import Route, Router, _Paths, host_of
from tests.support.fuzz import examples


def route(name: str, *paths: str, hosts: Sequence[str] = (), **more: Any) -> Route:
    return Route(name, paths or ("/*",), (), None, hosts=tuple(hosts), **more)


def found(
    routes: Sequence[Route], path: str, host: str = "example.com", method: str = "GET", remote_addr: str = "192.0.2.1"
) -> str | None:
    match = Router(routes).match(host, path, Message(method, path, [], remote_addr=remote_addr))
    return match.id if match else None


def test_no_routes() -> None:
    assert found([], "/") is None


def test_exact_before_prefix_and_longest_first() -> None:
    routes = [route("all", "/*"), route("a", "/a*"), route("ab", "/a/b*"), route("exact", "/a/b")]
    assert found(routes, "/a/b") == "exact"
    assert found(routes, "/a/bc") == "ab"
    assert found(routes, "/a/c") == "a"
    assert found(routes, "/b") == "all"


def test_a_prefix_may_have_an_empty_rest() -> None:
    assert found([route("r", "/a/*")], "/a/") == "r"
    assert found([route("r", "/a/*")], "/a") is None
    assert found([route("r", "/a*")], "/a") == "r"
    assert found([route("r", "*")], "/") == "r"


def test_paths_are_compared_with_case() -> None:
    assert found([route("r", "/A")], "/a") is None


def test_priority_counts_within_the_same_path_only() -> None:
    routes = [route("low", "/a*", priority=0), route("high", "/a*", priority=1), route("all", "/*", priority=9)]
    assert found(routes, "/a") == "high"
    routes = [route("prefix", "/a*", priority=9), route("exact", "/a", priority=-9)]
    assert found(routes, "/a") == "exact"


def test_then_the_one_created_first() -> None:
    assert found([route("younger", "/a", order=2), route("older", "/a", order=1)], "/a") == "older"
    assert found([route("younger", "/a", order=2, priority=1), route("older", "/a", order=1)], "/a") == "younger"


def test_exact_host_then_wildcards_then_none() -> None:
    routes = [
        route("none", "/exact"),
        route("wide", hosts=["*.example.com"]),
        route("narrow", hosts=["*.b.example.com"]),
        route("host", hosts=["a.b.example.com"]),
    ]
    assert found(routes, "/exact", "a.b.example.com") == "host"
    assert found(routes, "/exact", "c.b.example.com") == "narrow"
    assert found(routes, "/exact", "x.y.example.com") == "wide"
    assert found(routes, "/exact", "example.com") == "none"
    assert found(routes, "/exact", "xexample.com") == "none"
    assert found(routes, "/other", "example.com") is None
    assert found(routes, "/exact", "") == "none"


def test_a_route_for_any_host_comes_before_those_for_none() -> None:
    routes = [route("none", "/exact"), route("any", hosts=["*"]), route("host", "/host", hosts=["a.example.com"])]
    assert found(routes, "/exact", "a.example.com") == found(routes, "/exact", "") == "any"
    assert found(routes, "/host", "a.example.com") == "host"


def test_hosts_are_compared_without_case() -> None:
    assert found([route("r", hosts=["API.example.com"])], "/", "api.EXAMPLE.com") == "r"
    assert found([route("r", hosts=["*.Example.com"])], "/", "API.eXample.com") == "r"


def test_one_route_may_have_many_hosts_and_paths() -> None:
    routes = [route("r", "/a", "/b*", hosts=["x.test", "*.y.test"])]
    for host in ("x.test", "a.y.test"):
        assert found(routes, "/a", host) == "r"
        assert found(routes, "/bc", host) == "r"
        assert found(routes, "/c", host) is None
    assert found(routes, "/a", "y.test") is None


def test_a_route_that_fails_is_passed_over() -> None:
    post = frozenset({"POST"})
    routes = [
        route("host", "/a", hosts=["example.com"], methods=post),
        route("wild", "/a", hosts=["*.com"], methods=post),
        route("exact", "/a", methods=post),
        route("high", "/a*", methods=post, priority=1),
        route("low", "/a*", condition=lambda message: False),
        route("all", "/*"),
    ]
    assert found(routes, "/a") == "all"
    assert found(routes, "/a", method="POST") == "host"
    assert found(routes[1:], "/a", method="POST") == "wild"
    assert found(routes[2:], "/a", method="POST") == "exact"
    assert found(routes[3:], "/a", method="POST") == "high"
    assert found(routes[:5], "/a") is None  # a wrong method is no route, never 405


def test_methods_are_compared_with_case() -> None:
    assert found([route("r", methods=frozenset({"GET"}))], "/", method="get") is None


@pytest.mark.parametrize(
    ("network", "address", "matches"),
    [
        ("192.0.2.0/24", "192.0.2.9", True),
        ("192.0.2.0/24", "192.0.3.9", False),
        ("192.0.2.9", "192.0.2.9", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "192.0.2.9", False),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),  # as a socket for both families writes it
        ("127.0.0.1", "::1", False),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "unix:", False),
        ("0.0.0.0/0", "192.0.2.9:80", False),
    ],
)
def test_addresses(network: str, address: str, matches: bool) -> None:
    routes = [route("r", networks=(ip_network("198.51.100.0/24"), ip_network(network)))]
    assert (found(routes, "/", remote_addr=address) == "r") is matches


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("example.com", "example.com"),
        ("example.com:8080", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:80", "example.com"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("", ""),
        (":80", ""),
    ],
)
def test_host_of(authority: str, host: str) -> None:
    assert host_of(authority) == host


# --- a plain search over all routes must find the same ---


def plain(routes: Sequence[Route], host: str, path: str, message: Message) -> str | None:
    """The best of all fitting (route, host, path) triples, by the rule's own order."""
    best: tuple[Any, ...] | None = None
    for candidate in routes:
        for wanted in candidate.hosts or ("",):
            wanted = wanted.lower()
            if wanted == "":
                host_rank: tuple[int, int] = (2, 0)
            elif wanted == host.lower():
                host_rank = (0, 0)
            elif wanted.startswith("*") and host.lower().endswith(wanted[1:]):
                host_rank = (1, -len(wanted))
            else:
                continue
            for pattern in candidate.paths:
                if pattern == path:
                    path_rank: tuple[int, int] = (0, 0)
                elif pattern.endswith("*") and path.startswith(pattern[:-1]):
                    path_rank = (1, -len(pattern))
                else:
                    continue
                if candidate.methods and message.method not in candidate.methods:
                    continue
                rank = (host_rank, path_rank, -candidate.priority, candidate.order, candidate.id)
                if best is None or rank < best:
                    best = rank
    return best[-1] if best else None


paths = st.sampled_from(["/", "/*", "/a", "/a*", "/a/", "/a/*", "/a/b", "/a/b*", "/ab", "/b*"])
hosts = st.sampled_from(["x.test", "*.test", "*.x.test", "a.x.test", "X.TEST", "*.other"])


@st.composite
def tables(draw: st.DrawFn) -> list[Route]:
    return [
        route(
            f"{number:03}",
            *draw(st.lists(paths, min_size=1, max_size=3, unique=True)),
            hosts=draw(st.lists(hosts, max_size=2, unique=True)),
            methods=frozenset(draw(st.lists(st.sampled_from(["GET", "POST"]), max_size=2))),
            priority=draw(st.integers(-1, 1)),
            order=number,
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@settings(max_examples=examples(100), deadline=None)
@given(
    tables(),
    st.randoms(use_true_random=False),
    st.sampled_from(["x.test", "a.x.test", "b.a.x.test", "test", "X.test", "", "y.other"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/c", "/abc", "/b", "/c", ""]),
    st.sampled_from(["GET", "POST", "PUT"]),
)
def test_as_a_plain_search(routes: list[Route], shuffle: Any, host: str, path: str, method: str) -> None:
    message = Message(method, path, [])
    expected = plain(routes, host, path, message)
    shuffled = list(routes)
    shuffle.shuffle(shuffled)
    match = Router(shuffled).match(host, path, message)
    assert (match.id if match else None) == expected


# --- the cost of a match ---


def looked_at(count: int) -> int:
    """How many routes a match asks, of `count` on distinct hosts and paths."""
    routes = [route(f"e{n}", f"/exact/{n:06}") for n in range(count)]
    routes += [route(f"p{n}", f"/prefix/{n:06}*") for n in range(count)]
    routes += [route(f"h{n}", "/x", hosts=[f"{n:06}.test"]) for n in range(count)]
    routes += [route(f"w{n}", "/x", hosts=[f"*.{n:06}.test"]) for n in range(count)]
    routes += [route("all", "/*")]
    router = Router(routes)
    with mock.patch.object(Route, "accepts", autospec=True, return_value=False) as asked:
        for host, path in (("none.test", "/exact/000001"), ("a.000001.test", "/x"), ("none.test", "/prefix/000001/x")):
            router.match(host, path, Message("GET", path, []))
    return asked.call_count


def test_a_match_asks_no_more_routes_when_there_are_more() -> None:
    assert looked_at(10) == looked_at(500)


def test_prefixes_cost_one_look_up_per_distinct_length() -> None:
    table = _Paths([(f"/{n:05}*", route(str(n))) for n in range(1000)] + [("/*", route("all"))])
    assert table._lengths == [6, 1]
    assert isinstance(table._prefixes, dict)
    assert len(table._prefixes) == 1001
    router = Router([route(str(n), hosts=[f"*.{n:05}.test"]) for n in range(1000)])
    assert router._suffix_lengths == [len(".00000.test")]
