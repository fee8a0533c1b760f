"""schema: what is wrong with a configuration, in our words and in APISIX's."""

from __future__ import annotations

from typing import Any

import pytest

from hmac_gateway.core.errors import ConfigError
from hmac_gateway.schema import apisix_text, check, problem

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 9},
        "b": {"type": "string", "minLength": 1, "maxLength": 3},
        "c": {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string", "enum": ["x", "y"]}},
        "d": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {"n": {"type": "number", "exclusiveMinimum": 0}},
        },
        "e": {"type": "string", "pattern": "^[a-z]+$"},
        "f": {"type": "boolean"},
        "g": {"type": ["string", "object"]},
        "h": {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "number"}]},
        "i": {"anyOf": [{"required": ["x"]}, {"required": ["y"]}]},
        "j": {"not": {"type": "string"}},
        "k": {"type": "object", "patternProperties": {".*": {"type": "string", "minLength": 2}}},
        "l": {"anyOf": [{"pattern": "^x"}, {"type": "integer"}]},
        "m": {"type": "string", "pattern": r"^\w\Z"},
        "n": {"properties": {"o": {"properties": {"p": {"maximum": 7}}}}},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
GOOD = {"a": 1, "b": "x"}


def test_right() -> None:
    check(GOOD, SCHEMA)
    assert problem(GOOD, SCHEMA) is None


@pytest.mark.parametrize(
    ("change", "field", "allowed", "text"),
    [
        ({"a": -1}, "a", "a number of at least 0", 'property "a" validation failed: expected -1 to be at least 0'),
        ({"a": 10}, "a", "a number of at most 9", 'property "a" validation failed: expected 10 to be at most 9'),
        ({"a": -1.0}, "a", "a number of at least 0", 'property "a" validation failed: expected -1 to be at least 0'),
        (
            {"a": -(10**400)},
            "a",
            "a number of at least 0",
            f'property "a" validation failed: expected -1{"0" * 400} to be at least 0',
        ),
        (
            {"a": "1"},
            "a",
            "a value of type integer",
            'property "a" validation failed: wrong type: expected integer, got string',
        ),
        (
            {"a": True},
            "a",
            "a value of type integer",
            'property "a" validation failed: wrong type: expected integer, got boolean',
        ),
        (
            {"a": None},
            "a",
            "a value of type integer",
            'property "a" validation failed: wrong type: expected integer, got userdata',
        ),
        (
            {"a": []},
            "a",
            "a value of type integer",
            'property "a" validation failed: wrong type: expected integer, got table',
        ),
        (
            {"b": 5},
            "b",
            "a value of type string",
            'property "b" validation failed: wrong type: expected string, got number',
        ),
        (
            {"b": ""},
            "b",
            "text of at least 1 character",
            'property "b" validation failed: string too short, expected at least 1, got 0',
        ),
        (
            {"b": "four"},
            "b",
            "text of at most 3 characters",
            'property "b" validation failed: string too long, expected at most 3, got 4',
        ),
        (
            {"c": []},
            "c",
            "a list of at least 1 item",
            'property "c" validation failed: expect array to have at least 1 items',
        ),
        (
            {"c": ["x", "y", "x"]},
            "c",
            "a list without repetition",
            'property "c" validation failed: expected unique items but items 1 and 3 are equal',
        ),
        (
            {"c": ["x", "z"]},
            "c.2",
            "one of x, y",
            'property "c" validation failed: failed to validate item 2: matches none of the enum values',
        ),
        (
            {"d": {}},
            "d",
            "an object with at least 1 entries",
            'property "d" validation failed: expect object to have at least 1 properties',
        ),
        (
            {"d": {"n": 0}},
            "d.n",
            "a number greater than 0",
            'property "d" validation failed: property "n" validation failed: expected 0 to be greater than 0',
        ),
        (
            {"d": {"n": 1, "m": 1}},
            "d",
            "1",
            'property "d" validation failed: expect object to have at most 1 properties',
        ),
        (
            {"e": "A1"},
            "e",
            "text that matches ^[a-z]+$",
            'property "e" validation failed: failed to match pattern "^[a-z]+$" with "A1"',
        ),
        (
            {"f": "no"},
            "f",
            "a value of type boolean",
            'property "f" validation failed: wrong type: expected boolean, got string',
        ),
        (
            {"g": 1},
            "g",
            "a value of type string or object",
            'property "g" validation failed: wrong type: expected one of string, object, got number',
        ),
        (
            {"h": []},
            "h",
            '[{"type": "string"}, {"type": "integer"}, {"type": "number"}]',
            'property "h" validation failed: value should match only one schema, but matches none',
        ),
        (
            {"h": 1},
            "h",
            '[{"type": "string"}, {"type": "integer"}, {"type": "number"}]',
            'property "h" validation failed: value should match only one schema, but matches both schemas 2 and 3',
        ),
        (
            {"i": {}},
            "i",
            '[{"required": ["x"]}, {"required": ["y"]}]',
            'property "i" validation failed: object matches none of the required: ["x"] or ["y"]',
        ),
        (
            {"k": {"a": "x"}},
            "k.a",
            "text of at least 2 characters",
            'property "k" validation failed: failed to validate a (matching ".*"): string too short, '
            "expected at least 2, got 1",
        ),
        (
            {"l": "$"},
            "l",
            '[{"pattern": "^x"}, {"type": "integer"}]',
            'property "l" validation failed: object matches none of the required',
        ),
        (
            {"m": '"\\\n'},
            "m",
            r"text that matches ^\w\Z",
            'property "m" validation failed: failed to match pattern "^\\\\w$" with "\\"\\\\\\\n"',
        ),
        (
            {"n": {"o": {"p": 1.5e20}}},
            "n.o.p",
            "a number of at most 7",
            'property "n" validation failed: property "o" validation failed: property "p" validation failed: '
            "expected 1.5e+20 to be at most 7",
        ),
        (
            {"j": "x"},
            "j",
            '{"type": "string"}',
            'property "j" validation failed: value wasn\'t supposed to match schema',
        ),
        ({"z": 1}, "z", "one of a, b, c, d, e, f, g, h, i, j, k, l, m, n", "additional properties forbidden, found z"),
    ],
)
def test_wrong(change: dict[str, Any], field: str, allowed: str, text: str) -> None:
    value = {**GOOD, **change}
    with pytest.raises(ConfigError) as caught:
        check(value, SCHEMA)
    assert (caught.value.field, caught.value.allowed) == (field, allowed)
    assert apisix_text(problem(value, SCHEMA)) == text


def test_missing() -> None:
    for value, field in (({}, "a"), ({"a": 1}, "b"), ({"b": "x"}, "a")):
        with pytest.raises(ConfigError) as caught:
            check(value, SCHEMA)
        assert (caught.value.field, caught.value.given) == (field, None)
        assert apisix_text(problem(value, SCHEMA)) == f'property "{field}" is required'


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_no_object_at_all(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check(value, SCHEMA)
    assert caught.value.field == "configuration"


def test_the_first_problem_in_the_order_of_the_schema() -> None:
    assert apisix_text(problem({"e": "1", "b": "long!", "a": 1}, SCHEMA)).startswith('property "b"')
    assert apisix_text(problem({"e": "1", "a": 1}, SCHEMA)) == 'property "b" is required'


def test_lengths_are_said_in_characters() -> None:
    assert apisix_text(problem({**GOOD, "b": "\u20ac" * 4}, SCHEMA)).endswith("expected at most 3, got 4")


def test_alternatives_of_the_whole_are_looked_at_last_and_numbered() -> None:
    schema = {
        "properties": {"a": {"properties": {"x": {"type": "string"}}, "required": ["y"]}},
        "additionalProperties": False,
        "allOf": [{}, {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}],
    }
    assert apisix_text(problem({}, schema)) == ("allOf 2 failed: value should match only one schema, but matches none")
    assert apisix_text(problem({"b": 1, "c": 1}, schema)) == "additional properties forbidden, found b"
    inner = 'property "a" validation failed: '
    assert apisix_text(problem({"a": {"x": 1}}, schema)) == (
        inner + 'property "x" validation failed: wrong type: expected string, got number'
    )
    assert apisix_text(problem({"a": {}}, schema)) == inner + 'property "y" is required'


def test_descriptions_speak_where_a_pattern_would_not() -> None:
    schema = {"type": "object", "properties": {"p": {"type": "string", "pattern": "^x", "description": "an x"}}}
    with pytest.raises(ConfigError) as caught:
        check({"p": "y"}, schema)
    assert str(caught.value) == "p: 'y' was given; allowed: an x"


@pytest.mark.parametrize(
    ("value", "field"), [({"": 1}, "configuration"), ({"o": {"": 1}}, "o"), ({"o": {"q": 1}}, "q")]
)
def test_an_unknown_field_without_a_name_is_named_by_its_place(value: Any, field: str) -> None:
    inner = {"type": "object", "properties": {"n": {"type": "number"}}, "additionalProperties": False}
    schema = {"type": "object", "properties": {"o": inner}, "additionalProperties": False}
    with pytest.raises(ConfigError) as caught:
        check(value, schema)
    assert caught.value.field == field
