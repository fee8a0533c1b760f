"""expr: APISIX `vars`, operator by operator, and everything that must be refused when it is written."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.core.message import Message
from hmac_gateway.expr import compile_expr
from tests.support.fuzz import examples


def request(
    query: str = "", *headers: tuple[str, str], method: str = "GET", path: str = "/t", remote_addr: str = "127.0.0.1"
) -> Message:
    target = f"{path}?{query}" if query else path
    return Message(method, target, [("Host", "Api.Example.com:8080"), *headers], "https", remote_addr=remote_addr)


def holds(*conditions: Any, query: str = "", headers: tuple[tuple[str, str], ...] = (), **more: Any) -> bool:
    return compile_expr(list(conditions))(request(query, *headers, **more))


# --- operators ---


@pytest.mark.parametrize(
    ("condition", "query", "result"),
    [
        (["arg_k", "==", "v"], "k=v", True),
        (["arg_k", "==", "v"], "k=not_hit", False),
        (["arg_k", "==", "v"], "K=v", False),
        (["arg_k", "==", "v"], "", False),
        (["arg_k", "==", "1"], "k=1.0", False),
        (["arg_k", "==", 1], "k=1.0", True),
        (["arg_k", "==", 1], "k=x", False),
        (["arg_k", "==", 1], "k", False),  # no value is not 1
        (["arg_k", "==", 1.5], "k=15e-1", True),
        (["arg_k", "==", ""], "k=", True),
        (["arg_k", "==", ""], "k", False),
        (["arg_k", "==", True], "k", True),
        (["arg_k", "==", True], "k=true", False),
        (["arg_k", "==", None], "", True),
        (["arg_k", "==", None], "k", False),
        (["arg_k", "~=", None], "k=v", True),
        (["arg_k", "~=", None], "", False),
        (["arg_k", "~=", "v"], "k=v", False),
        (["arg_k", "~=", "v"], "k=w", True),
        (["arg_k", "~=", "v"], "", True),
        (["arg_age", "~=", 18], "age=18", False),
        (["arg_age", "~=", 18], "age=16", True),
        (["arg_age", "~=", 18], "age=aa", True),
        (["arg_age", "~=", 18], "", True),
        (["arg_age", "~=", "18"], "age=18", False),
        (["arg_k", ">", 10], "k=11", True),
        (["arg_k", ">", 10], "k=10", False),
        (["arg_k", ">", 10], "k=9", False),  # as numbers, not as text
        (["arg_k", ">", 10], "k=x", False),
        (["arg_k", ">", 10], "k", False),
        (["arg_k", ">", 10], "", False),
        (["arg_k", ">", 10], "k=11x", False),
        (["arg_k", ">", 10], "k=+11", True),  # the plus is a blank
        (["arg_k", ">", 10], "k=nan", False),
        (["arg_k", ">", 10], "k=" + "9" * 500, False),
        (["arg_k", ">", 10], "k=%D9%A1%D9%A2", False),
        (["arg_k", ">=", "2"], "k=2", True),
        (["arg_k", ">=", 3], "k=2", False),
        (["arg_k", "<=", "2"], "k=3", False),
        (["arg_k", "<=", 3], "k=3", True),
        (["arg_k", "<", 3], "k=-3.5", True),
        (["arg_k", "<", 3], "k=3", False),
        (["arg_k", "<", 3], "", False),
        (["arg_k", "~~", "[a-z]{1,4}"], "k=9ab", True),  # anywhere in it
        (["arg_k", "~~", "^[a-z]+$"], "k=aB", False),
        (["arg_k", "~*", "^[a-z]+$"], "k=aB", True),
        (["arg_k", "~*", "A"], "k=b", False),
        (["arg_k", "~~", ".*"], "", False),
        (["arg_k", "~~", ".*"], "k", False),
        (["arg_k", "~~", "^\u00e9$"], "k=%C3%A9", True),
        (["arg_k", "in", ["1", "2"]], "k=1", True),
        (["arg_k", "in", ["1", "2"]], "k=4", False),
        (["arg_k", "in", ["1", "2"]], "", False),
        (["arg_k", "in", ["\u00e9"]], "k=%C3%A9", True),
        (["arg_k", "has", "a"], "k=b&k=a", True),
        (["arg_k", "has", "a"], "k=b", False),
        (["arg_k", "has", "a"], "", False),
        (["remote_addr", "ipmatch", "127.0.0.1"], "", True),
        (["remote_addr", "ipmatch", "127.0.0.0/16"], "", True),
        (["remote_addr", "ipmatch", ["127.0.0.2", "127.0.0.0/16"]], "", True),
        (["remote_addr", "ipmatch", ["127.0.0.2", "::/0"]], "", False),
        (["remote_addr", "ipmatch", "127.0.1.1/16"], "", True),  # host bits do not matter
        (["arg_ip", "ipmatch", ["10.0.0.0/8"]], "ip=10.1.2.3", True),
        (["arg_ip", "ipmatch", ["10.0.0.0/8"]], "ip=::ffff:10.1.2.3", True),
        (["arg_ip", "ipmatch", ["10.0.0.0/8"]], "ip=10.1.2", False),
        (["arg_ip", "ipmatch", ["10.0.0.0/8"]], "ip", False),
        (["arg_ip", "ipmatch", ["10.0.0.0/8"]], "", False),
        (["arg_k", "IN", ["1"]], "k=1", True),
    ],
)
def test_operators_and_their_negation(condition: list[Any], query: str, result: bool) -> None:
    assert holds(condition, query=query) is result
    assert holds([condition[0], "!", *condition[1:]], query=query) is not result


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        (["!AND", ["arg_w", ">", 10], ["arg_w", "!", ">", 15]], False),
        (["!AND", ["arg_w", ">", 13], ["arg_w", "!", ">", 15]], True),
        (["!OR", ["arg_w", ">", 13], ["arg_w", "!", "<", 15]], True),
        (["!OR", ["arg_w", ">", 10], ["arg_w", ">", 15]], False),
        (["OR", ["arg_w", ">", 15], ["arg_h", ">", 5]], True),
        (["OR", ["arg_w", ">", 15], ["arg_h", ">", 7]], False),
        (["AND", ["arg_w", ">", 10], ["arg_h", ">", 5]], True),
        (["AND", ["arg_w", ">", 10], ["arg_h", ">", 7]], False),
        (["or", ["arg_w", ">", 15], ["arg_h", ">", 5]], True),
        # Side by side, all must hold.
        ([["arg_w", ">", 10], ["arg_h", ">", 5]], True),
        ([["arg_w", ">", 10], ["arg_h", ">", 7]], False),
        ([["OR", ["arg_w", ">", 15], ["arg_h", ">", 5]], ["arg_w", "==", "12"]], True),
        (
            [
                "!OR",
                ["!AND", ["arg_w", "<", 20], ["arg_w", "!", "<", 11]],
                ["!OR", ["arg_h", ">", 5], ["arg_h", "<", 1]],
            ],
            True,
        ),
        (["OR", [["arg_w", ">", 10], ["arg_h", ">", 7]], ["AND", ["arg_w", ">", 10], ["arg_h", ">", 5]]], True),
        (["OR", [["arg_w", ">", 10], ["arg_h", ">", 7]], ["arg_w", "==", "1"]], False),
    ],
)
def test_logic(condition: list[Any], result: bool) -> None:
    assert compile_expr(condition)(request("w=12&h=6")) is result


def test_no_condition_holds() -> None:
    assert compile_expr([])(request())


# --- names ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_method", "GET"),
        ("remote_addr", "127.0.0.1"),
        ("uri", "/a b/c"),
        ("request_uri", "//a%20b/c?x=1&x=2&y=%41+b&z"),
        ("host", "api.example.com"),
        ("scheme", "https"),
        ("query_string", "x=1&x=2&y=%41+b&z"),
        ("args", "x=1&x=2&y=%41+b&z"),
        ("arg_x", "1"),  # the first
        ("arg_y", "A b"),  # decoded
        ("http_x_custom_a", "one, two"),  # joined
        ("http_X_Custom_A", "one, two"),
        ("http_host", "Api.Example.com:8080"),
        ("cookie_a", "3"),  # the last
        ("cookie_b", '"2"'),
        ("cookie_d", "4"),
    ],
)
def test_names(name: str, value: str) -> None:
    message = request(
        "x=1&x=2&y=%41+b&z",
        ("X-Custom-A", "one"),
        ("x-custom-a", "two"),
        ("Cookie", 'a=1; b="2";c; \t d \t= 4 '),
        ("Cookie", "a=3"),
        path="//a%20b/c",
    )
    assert compile_expr([[name, "==", value]])(message)
    assert not compile_expr([[name, "==", value + "x"]])(message)


@pytest.mark.parametrize("name", ["args", "query_string", "remote_addr", "host", "arg_x", "http_x", "cookie_x"])
def test_what_is_not_there_is_missing(name: str) -> None:
    message = Message("GET", "/", [], remote_addr="")
    assert compile_expr([[name, "==", None]])(message)
    assert not compile_expr([[name, "~~", ""]])(message)
    assert not compile_expr([[name, "has", ""]])(message)


def test_values_are_bytes_as_clients_send_them() -> None:
    utf8 = "\u20ac".encode().decode("latin-1")
    assert holds(["arg_\u20ac", "==", "\u20ac"], query="%E2%82%AC=%e2%82%ac")
    assert holds(["http_x", "==", "\u20ac"], headers=(("X", utf8),))
    assert holds(["http_x", "in", ["\u20ac"]], headers=(("X", utf8),))
    assert holds(["http_x", "~~", "^\u20ac$"], headers=(("X", utf8),))


def test_has_looks_at_every_value() -> None:
    headers = (("X", "a"), ("X", "b"), ("Cookie", "c=1; c=2"))
    assert holds(["http_x", "has", "b"], headers=headers)
    assert holds(["cookie_c", "has", "1"], headers=headers)
    assert holds(["request_method", "HAS", "GET"])
    assert not holds(["http_x", "has", "a, b"], headers=headers)


# --- refusals ---


@pytest.mark.parametrize(
    "expr",
    [
        None,
        "arg_k == v",
        {"arg_k": "v"},
        ["arg_k", "==", "v"],  # not wrapped
        ["AND"],
        ["OR", ["arg_k", ">", 1]],
        ["XOR", ["arg_k", ">", 1], ["arg_k", ">", 2]],
        ["OR", ["arg_k", ">", 1], ["AND"]],
        ["OR", ["arg_k", ">", 1], "arg_k"],
        [[]],
        [[[]]],
        [["arg_k"]],
        [["arg_k", "v"]],
        [["arg_k", "!", "v"]],
        [["arg_k", "==", "v", "w"]],
        [["arg_k", "!", "==", "v", "w"]],
        [["!", "arg_k", "==", "1"]],
        [["arg_k", "=", "v"]],
        [["arg_k", "!=", "v"]],
        [["arg_k", "not in", ["v"]]],
        [["arg_k", None, "v"]],
        [["arg_k", ["=="], "v"]],
        [[5, "==", "v"]],
        [[None, "==", "v"]],
        [["arg_k", "==", "v"], "arg_j"],
        [["arg_k", "==", "v"], ["arg_j", "=="]],
        # Names.
        [["", "==", "v"]],
        [["arg_", "==", "v"]],
        [["http_", "==", "v"]],
        [["cookie_", "==", "v"]],
        [["uri_param_id", "==", "v"]],
        [["post_arg_name", "==", "v"]],
        [["graphql_name", "==", "v"]],
        [["server_port", "==", "v"]],
        [["ARG_k", "==", "v"]],
        [["consumer_name", "==", "v"]],
        # Values.
        [["arg_k", "==", ["v"]]],
        [["arg_k", "~=", {"a": 1}]],
        [["arg_k", ">", "x"]],
        [["arg_k", ">", True]],
        [["arg_k", ">", None]],
        [["arg_k", ">", []]],
        [["arg_k", ">", float("nan")]],
        [["arg_k", "==", float("inf")]],
        [["arg_k", "<", 10**400]],
        [["arg_k", "in", "v"]],
        [["arg_k", "in", []]],
        [["arg_k", "in", [1, 2]]],
        [["arg_k", "!", "in", ["1", 2]]],
        [["arg_k", "has", 1]],
        [["arg_k", "has", ["v"]]],
        [["arg_k", "~~", 5]],
        [["arg_k", "~~", None]],
        [["arg_k", "~~", "["]],
        [["arg_k", "~~", "(?=a)"]],
        [["arg_k", "~~", r"(a)\1"]],
        [["arg_k", "~*", "a" * 1025]],
        [["arg_k", "~~", "((a{500}){500}){500}"]],
        [["remote_addr", "ipmatch", None]],
        [["remote_addr", "ipmatch", ""]],
        [["remote_addr", "ipmatch", []]],
        [["remote_addr", "ipmatch", [""]]],
        [["remote_addr", "ipmatch", ["127.0.0.1", "x"]]],
        [["remote_addr", "ipmatch", ["127.0.0.1/33"]]],
        [["remote_addr", "ipmatch", [127]]],
        [["remote_addr", "ipmatch", {"127.0.0.1": 1}]],
    ],
    ids=repr,
)
def test_refused_when_written(expr: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_expr(expr)
    assert caught.value.field == "vars"
    assert caught.value.allowed
    assert "re2" not in capfd.readouterr().err


def test_refusals_say_why() -> None:
    for expr, words in (
        (["uri_param_id", "==", "1"], "named parameters"),
        (["post_arg_x", "==", "1"], "before the body is read"),
        (["server_port", "==", "1"], "arg_…"),
        (["arg_k", "~~", "(?=a)"], "invalid perl operator"),
        (["arg_k", "=", "v"], "operator is one of =="),
    ):
        with pytest.raises(ConfigError) as caught:
            compile_expr([expr])
        assert words in caught.value.allowed


def test_nesting_has_an_end() -> None:
    rule: list[Any] = ["arg_k", "==", "v"]
    for _ in range(5000):
        rule = [rule]
    with pytest.raises(ConfigError):
        compile_expr(rule)
    for depth, fits in ((32, True), (33, False)):
        rule = ["arg_k", "==", "v"]
        for _ in range(depth):
            rule = [rule]
        if fits:
            assert compile_expr(rule)(request("k=v"))
        else:
            with pytest.raises(ConfigError):
                compile_expr(rule)


def test_a_regex_may_be_as_long_as_said() -> None:
    assert compile_expr([["arg_k", "~~", "a" * 1024]])(request("k=" + "a" * 1024))
    with pytest.raises(ConfigError):
        compile_expr([["arg_k", "~~", "\u20ac" * 342]])  # 1026 bytes


def test_a_regex_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(ConfigError) as caught:
        compile_expr([["arg_k", "~~", "a"]])
    assert "google-re2" in caught.value.allowed
    assert compile_expr([["arg_k", "==", "a"]])(request("k=a"))


def test_a_regex_takes_linear_time() -> None:
    assert not holds(["arg_k", "~~", "^(a+)+$"], query="k=" + "a" * 50_000 + "!")


# --- properties ---

names = st.sampled_from(
    ["arg_a", "arg_b", "http_a", "cookie_a", "uri", "host", "args", "remote_addr", "nope", "", "OR"]
)
operators = st.sampled_from(["==", "~=", ">", "<", "~~", "~*", "in", "has", "ipmatch", "!", "=", "IN"])
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=3),
)
rules = st.recursive(
    st.one_of(st.lists(st.one_of(names, operators, values), max_size=5), st.tuples(names, operators, values).map(list)),
    lambda inner: st.lists(st.one_of(inner, st.sampled_from(["AND", "OR", "!AND", "!OR"])), max_size=4),
    max_leaves=8,
)


@settings(max_examples=examples(150), deadline=None)
@given(
    rules,
    st.text(st.characters(max_codepoint=255), max_size=20),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
def test_either_refused_or_a_truth_value(expr: Any, query: str, header: str) -> None:
    try:
        predicate = compile_expr(expr)
    except ConfigError:
        return
    message = request(query, ("A", header), ("Cookie", header), remote_addr=header)
    assert predicate(message) in (True, False)


conditions = st.builds(
    lambda name, op, value: [name, op, value],
    st.sampled_from(["arg_a", "arg_b", "http_a"]),
    st.sampled_from(["==", "~="]),
    st.sampled_from(["1", "2", 1, None]),
)


@settings(deadline=None)
@given(st.lists(conditions, min_size=2, max_size=4), st.sampled_from(["", "a=1", "a=2&b=1", "b=2", "a", "a=1.0&b"]))
def test_logic_is_pythons(parts: list[Any], query: str) -> None:
    message = request(query, ("A", "1"))
    each = [compile_expr([part])(message) for part in parts]
    assert compile_expr(parts)(message) is all(each)
    assert compile_expr(["AND", *parts])(message) is all(each)
    assert compile_expr(["!AND", *parts])(message) is not all(each)
    assert compile_expr(["OR", *parts])(message) is any(each)
    assert compile_expr(["!OR", *parts])(message) is not any(each)
    assert [compile_expr([[part[0], "!", *part[1:]]])(message) for part in parts] == [not one for one in each]
