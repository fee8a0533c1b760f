"""routing_kong: which of all fitting routes wins, by Kong's rules; compared with a plain sort and scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.message import Message, host_of
from hmac_gateway.core.paths import decoded
from hmac_gateway.routing import Route, Router
from hmac_gateway.routing_kong import Entry, KongRouter, Path, Variant, condition
from tests.support.fuzz import examples


def entry(
    name: str,
    *paths: str,
    hosts: Sequence[str] = (),
    methods: Sequence[str] = (),
    headers: Mapping[str, Sequence[str]] | None = None,
    snis: Sequence[str] = (),
    regex_priority: int = 0,
    order: Any = 0,
) -> Entry:
    route = Route(
        name,
        paths,
        (),
        None,
        dialect="kong",
        hosts=tuple(hosts),
        methods=frozenset(methods),
        condition=condition(headers or {}, snis),
        order=order,
    )
    variants = tuple(Variant(Path.of(path), route) for path in paths)
    return Entry(route, variants, len(headers or {}), len(snis), regex_priority)


def found(
    entries: Sequence[Entry],
    path: str = "/",
    host: str = "example.com",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    scheme: str = "http",
) -> str | None:
    message = Message(method, path, [("host", host), *(headers or {}).items()], scheme)
    match = KongRouter(entries).match(host_of(host), path, message)
    return match.id if match else None


def test_no_routes() -> None:
    assert found([]) is None
    assert Router((), KongRouter([])).match("h", "/", Message("GET", "/", [])) is None


def test_a_plain_path_is_a_prefix_without_a_boundary() -> None:
    routes = [entry("foo", "/foo"), entry("all", "/")]
    assert [found(routes, path) for path in ("/foo", "/foo/", "/foobar", "/fo", "/FOO")] == [
        *("foo", "foo", "foo", "all", "all")
    ]


def test_a_regex_is_held_to_the_start_only() -> None:
    routes = [entry("regex", r"~/users/\d+"), entry("either", "~/a|/b")]
    assert found(routes, "/users/12/profile") == "regex"
    assert found(routes, "/x/users/12") is None
    assert found(routes, "/users/x") is None
    assert found(routes, "/b") == "either"
    assert found(routes, "/x/b") is None  # both sides of | are held to it


def test_escapes_of_a_regex_stand_for_what_is_decoded() -> None:
    routes = [
        entry("space", r"~/re%20x/\d+$"),
        entry("dot", "~/a%2Eb"),
        entry("oe", "~/endel%C3%B8st"),
        entry("or", "~/x%7Cy"),
    ]
    for path, name in (("/re%20x/42", "space"), ("/a.b", "dot"), ("/endel%c3%b8st", "oe"), ("/x%7cy", "or")):
        assert found(routes, decoded(path)) == name
    assert found(routes, "/aXb") is found(routes, "/x") is None


# The order of Kong's reference: what stands first wins over what follows, each time both fit.
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # More kinds of criteria, however short the path.
        (entry("r", "/", methods=["GET"]), entry("w", "/long/path")),
        (entry("r", "/", hosts=["*.example.com"]), entry("w", "/long/path")),
        (entry("r", "/", headers={"x": ["1"]}), entry("w", "/long/path")),
        (entry("r", "/", snis=["other.test"]), entry("w", "/long/path")),
        (entry("r", hosts=["*.example.com"], methods=["GET"]), entry("w", "~/long", regex_priority=9)),
        # Plain hosts only.
        (entry("r", "/", hosts=["a.example.com"]), entry("w", "/long/path", hosts=["*.example.com"])),
        (
            entry("r", "/", hosts=["a.example.com", "b.test"]),
            entry("w", "/long/path", hosts=["a.example.com", "*.test"]),
        ),
        (entry("r", "/", hosts=["a.example.com"]), entry("w", "/long/path", methods=["GET"])),
        # More header criteria; several values of one header are one.
        (
            entry("r", "/", headers={"x": ["1"], "y": ["2"]}),
            entry("w", "~/long", headers={"x": ["1", "2", "3"]}, regex_priority=9),
        ),
        # A regex, whatever its own priority, before any plain path.
        (entry("r", "~/lon", regex_priority=-1), entry("w", "/long/path")),
        (entry("r", "~/lon", regex_priority=2), entry("w", "~/long/path", regex_priority=1)),
        # regex_priority counts among regexes only.
        (entry("r", "/long/path"), entry("w", "/long", regex_priority=9)),
        # The longest plain path, of those of its routes that match.
        (entry("r", "/long/p"), entry("w", "/long/", "/very/long/path/that/does/not/match")),
        # Then the older one.
        (entry("r", "/long", order=1), entry("w", "/long", order=2)),
        (entry("r", "~/l.ng/path", order=1), entry("w", "~/long", order=2)),
    ],
)
def test_priority(better: Entry, worse: Entry) -> None:
    for routes in ([better, worse], [worse, better]):
        assert found(routes, "/long/path", "a.example.com", headers={"x": "1", "y": "2"}) == "r"
    assert found([worse], "/long/path", "a.example.com", headers={"x": "1", "y": "2"}) == "w"


# Kong's published example of routes on one service (its proxy reference, "Matching priorities").
def test_every_criterion_must_hold() -> None:
    routes = [
        entry("three", "/foo", "/bar", hosts=["example.com", "foo-service.com"], methods=["GET"]),
        entry("two", "/version/1/any", hosts=["example.com"]),
        entry("one", hosts=["example.com"]),
    ]
    assert found(routes, "/foo", "example.com") == "three"
    assert found(routes, "/bar", "foo-service.com") == "three"
    assert found(routes, "/foo/hello/world", "example.com") == "three"
    assert found(routes, "/", "example.com") == "one"
    assert found(routes, "/foo", "example.com", "POST") == "one"
    assert found(routes, "/foo", "foo.com") is None
    assert found(routes, "/version/1/any/x", "example.com") == "two"


# Kong's published example of regular expressions (evaluation order in its proxy reference).
def test_regex_priorities() -> None:
    routes = [
        entry("digits", r"~/status/\d+", regex_priority=0, order=1),
        entry("any", r"~/version/any/", regex_priority=1, order=2),
        entry("version", r"~/version/\d+/status/\d+", regex_priority=6, order=3),
        entry("plain", "/version", order=4),
    ]
    assert found(routes, "/version/1/status/2") == "version"
    assert found(routes, "/version/any/1") == "any"
    assert found(routes, "/version/x") == "plain"
    assert found(routes, "/status/7") == "digits"


def test_hosts() -> None:
    routes = [
        entry("exact", hosts=["a.example.com"]),
        entry("port", hosts=["p.example.com:8080"]),
        entry("left", hosts=["*.example.com"]),
        entry("right", hosts=["example.*"]),
        entry("left port", hosts=["*.port.test:8080"]),
        entry("right port", hosts=["port.*:8080"]),
        entry("six", hosts=["[::1]"]),
        entry("six port", hosts=["[::2]:81"]),
    ]
    answers = {
        "a.example.com": "exact",
        "A.EXAMPLE.COM": "exact",
        "a.example.com:999": "exact",  # a host without a port matches any
        "p.example.com:8080": "port",
        "p.example.com:81": "left",
        "x.y.example.com": "left",
        "example.com": "right",
        "example.co.uk:81": "right",
        "a.port.test:8080": "left port",
        "a.port.test": None,
        "port.net:8080": "right port",
        "port.net": None,
        "[::1]": "six",
        "[::1]:90": "six",
        "[::2]:81": "six port",
        "[::2]": None,
        "": None,
    }
    assert {host: found(routes, host=host) for host in answers} == answers


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_a_host_without_a_port_has_its_schemes(scheme: str, port: int) -> None:
    routes = [entry("r", hosts=[f"example.com:{port}"])]
    assert found(routes, host="example.com", scheme=scheme) == "r"
    assert found(routes, host=f"example.com:{port}", scheme=scheme) == "r"
    assert found(routes, host="example.com:81", scheme=scheme) is None


def test_headers() -> None:
    routes = [entry("r", headers={"X-Kind": ["Alpha", "beta"], "user_agent": [r"~*^curl/\d"]})]
    assert found(routes, headers={"x-kind": "ALPHA", "User-Agent": "CURL/8"}) == "r"
    assert found(routes, headers={"x-kind": "beta", "User-Agent": "curl/8.1 x"}) == "r"
    assert found(routes, headers={"x-kind": "beta"}) is None
    assert found(routes, headers={"x-kind": "gamma", "User-Agent": "curl/8"}) is None
    assert found(routes, headers={"x-kind": "beta", "User-Agent": "x curl/8"}) is None
    several = Message("GET", "/", [("x-kind", "gamma"), ("x-kind", "beta"), ("user-agent", "curl/8")])
    assert KongRouter(routes).match("", "/", several) is not None


def test_snis_ask_nothing_of_plaintext() -> None:
    routes = [entry("r", snis=["a.test."])]
    assert found(routes, host="b.test") == "r"
    assert found(routes, host="A.test:443", scheme="https") == "r"
    assert found(routes, host="b.test", scheme="https") is None


def test_apisix_routes_are_asked_first() -> None:
    router = Router([Route("a", ("/a",), (), None)], KongRouter([entry("k", "/", hosts=["x.test"], methods=["GET"])]))
    message = Message("GET", "/a", [("host", "x.test")])
    matches = [router.match("x.test", path, message) for path in ("/a", "/b")]
    assert [match and match.id for match in matches] == ["a", "k"]
    assert [route.id for route in router.routes] == ["a", "k"]


@pytest.mark.parametrize("path", ["a", "~a", r"~/(?=x)", "~/(", "~/" + "a" * 1024, ""])
def test_bad_paths(path: str) -> None:
    with pytest.raises(ConfigError, match="paths"):
        Path.of(path)


def test_paths_are_compared_as_they_are_decoded() -> None:
    assert found([entry("r", "/a%2Fb")], "/a/b") == "r"
    assert found([entry("r", "/ü")], "/ü".encode().decode("latin-1")) == "r"
    assert found([entry("r", "~/ü+$")], "/ü".encode().decode("latin-1")) == "r"


# --- a plain sort and scan over all routes must find the same ---


def plain(entries: Sequence[dict[str, Any]], host: str, path: str, method: str, x: str | None) -> str | None:
    """The rules read aloud: of all routes that fit, by each of their paths, the one that sorts first."""
    name, _, port = host.lower().partition(":")
    fitting = []
    for one in entries:
        hosts = [wanted for wanted in one["hosts"] if _host_fits(wanted.lower(), name, port or "80")]
        if one["hosts"] and not hosts:
            continue
        if one["methods"] and method not in one["methods"]:
            continue
        if one["headers"] and (x is None or x.lower() not in one["headers"]["x"]):
            continue
        kinds = sum(bool(one[kind]) for kind in ("hosts", "methods", "headers", "paths"))
        wild = not one["hosts"] or any("*" in wanted for wanted in one["hosts"])
        for wanted in one["paths"] or [None]:
            if wanted is None:
                regex, length = False, 0
            elif wanted.startswith("~"):
                if not re.match(wanted[1:], path):
                    continue
                regex, length = True, 0
            elif path.startswith(wanted):
                regex, length = False, len(wanted)
            else:
                continue
            priority = one["regex_priority"] if regex else 0
            rank = (kinds, not wild, len(one["headers"]), regex, priority, length)
            fitting.append((rank, -one["order"], one["name"]))
    return max(fitting)[2] if fitting else None


def _host_fits(wanted: str, name: str, port: str) -> bool:
    wanted, _, wanted_port = wanted.partition(":")
    if wanted_port and wanted_port != port:
        return False
    if wanted.startswith("*"):
        return name.endswith(wanted[1:])
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


paths = st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b", "~/a", "~/a.", "~/[ab]/b?", "~/a/(?P<x>b+)$", "~/.*b"])
hosts = st.sampled_from(["x.test", "X.test:81", "*.test", "*.x.test", "a.x.*", "x.*:81", "a.x.test"])


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{number:03}",
            "paths": draw(st.lists(paths, max_size=3, unique=True)),
            "hosts": draw(st.lists(hosts, max_size=2, unique=True)),
            "methods": draw(st.lists(st.sampled_from(["GET", "POST"]), max_size=1)),
            "headers": draw(st.sampled_from([{}, {}, {"x": ["1"]}, {"x": ["1", "2"]}])),
            "regex_priority": draw(st.integers(-1, 1)),
            "order": number,
        }
        for number in range(draw(st.integers(0, 12)))
    ]


@settings(max_examples=examples(150), deadline=None)
@given(
    tables(),
    st.randoms(use_true_random=False),
    st.sampled_from(["x.test", "x.test:81", "a.x.test", "b.a.X.test:82", "test", "", "x.y"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/bb", "/abc", "/b", "/b/", "/c"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from([None, "1", "2", "3"]),
)
def test_as_a_plain_sort_and_scan(
    given: list[dict[str, Any]], shuffle: Any, host: str, path: str, method: str, x: str | None
) -> None:
    expected = plain(given, host, path, method, x)
    entries = [
        entry(one["name"], *one["paths"], **{key: one[key] for key in one if key not in ("name", "paths")})
        for one in given
    ]
    shuffle.shuffle(entries)
    headers = {} if x is None else {"X": x}
    assert found(entries, path, host, method, headers) == expected


# --- the cost of a match ---


def looked_at(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many routes a match asks, of `count` on distinct hosts and paths."""
    asked = 0

    def accepts(route: Route, message: Message) -> bool:
        nonlocal asked
        asked += 1
        return False

    monkeypatch.setattr(Route, "accepts", accepts)
    entries = [entry(f"p{n}", f"/plain/{n:06}") for n in range(count)]
    entries += [entry(f"h{n}", "/x", hosts=[f"{n:06}.test"]) for n in range(count)]
    entries += [entry(f"w{n}", "/x", hosts=[f"*.{n:06}.test", f"{n:06}.*"]) for n in range(count)]
    entries += [entry(f"r{n}", rf"~/regex/{n:06}/\d+") for n in range(count)]
    router = KongRouter([*entries, entry("all", "/")])
    for host, path in (
        ("000001.test", "/x"),
        ("a.000001.test", "/x"),
        ("b", "/plain/000001"),
        ("b", "/regex/000001/7"),
    ):
        router.match(host, path, Message("GET", path, [("host", host)]))
    return asked


def test_a_match_asks_no_more_routes_when_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(10, monkeypatch) == looked_at(500, monkeypatch) > 0
