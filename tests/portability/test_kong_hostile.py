"""Broken and hostile kong.yml: refused in Kong's words with the place, quoting no secret; nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmac_gateway.portability import text
from hmac_gateway.portability.kong_import import Invalid
from hmac_gateway.portability.kong_problems import flattened, tree

from ..support.fuzz import examples
from .kong import document, file, refused, take
from .test_hostile import BOMB, MERGES

pytestmark = pytest.mark.django_db
A = "0855b320-0dd2-547d-891d-601e9b38647f"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (BOMB, "more than 3,000,000 values"),
        (MERGES, "more than 3,000,000 values"),
        ("services: " + "[" * 500, "nested deeper than 40 levels"),
        ('{"services":' * 5000, "nested deeper"),
        ("services: 1\nservices: 2\n", "line 2: a key that the same map has already"),
        ('{"services": 1, "services": 2}', "the same key twice"),
        ("a: \0", "a character that YAML does not allow"),
        ("secret: 'top-secret", "line 1, column 20: found unexpected end of stream"),
        ("a: !!python/object/apply:os.system [ls]", "a tag that is not plain YAML's"),
        ("a: 1\n---\nb: 1", "a second document starts here"),
        ("a: " + "9" * 5000, "a value that is not what its tag says, or too large"),
    ],
)
def test_files_that_are_not_read(written: str, words: str) -> None:
    with pytest.raises(text.FileError) as caught:
        text.load(written.encode(), end=False)
    assert words in str(caught.value) and "top-secret" not in str(caught.value)


def test_yaml_may_look_like_json() -> None:
    # As in Kong's own tests of /config.
    assert text.load(b'{"_format_version" : "1.1", "consumers" : [{"username" : "bobby",},],}', end=False) == {
        "_format_version": "1.1",
        "consumers": [{"username": "bobby"}],
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "the file: failed parsing declarative configuration: expected an object"),
        ("bobby tables", "the file: failed parsing declarative configuration: expected an object"),
        ({}, "_format_version: required field missing"),
        ({"_format_version": 1.1}, "_format_version: expected a string"),
        ({"_format_version": "4.0"}, "_format_version: expected one of: 1.1, 2.1, 3.0"),
        (document(_comment=5), "_comment: expected a string"),
        (document(_ignore={"a": 1}), "_ignore: expected an array"),
        (document(_transform="yes"), "_transform: expected a boolean"),
        (document(_info=[]), "_info: expected a record"),
        (document(_info={"select_tags": "x"}), "_info.select_tags: expected an array"),
        (document(_info={"select_tags": [1]}), "_info.select_tags: expected a string"),
        (document(_plugin_configs={"x": 1}), "_plugin_configs.x: expected a map"),
        (document(service=[]), "service: unknown field; did you mean services?"),
        (document(services={"s": {}}), "services: expected an array"),
        (document(services=["s"]), "services 1: expected a record"),
        (document(services=[{"name": "s"}]), "services 1 (name s): host: required field missing"),
        (
            document(services=[{"name": "s", "host": "h", "port": -12}]),
            "services 1 (name s): port: value should be between 0 and 65535",
        ),
        (document(services=[{"name": "s", "host": "h", "x": 1}]), "services 1 (name s): x: unknown field"),
        (
            document(services=[{"name": "a\0", "host": "h"}]),
            "services 1 (name a\\x00): NUL characters cannot be stored",
        ),
        (
            document(services=[{"name": "s", "host": "h", "routes": 5}]),
            "services 1 (name s): routes: expected an array",
        ),
        (
            document(services=[{"name": "s", "host": "h", "routes": [{"name": "r"}]}]),
            "services 1 (name s), routes 1 (name r): must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' "
            "when 'protocols' is 'https'",
        ),
        (
            document(routes=[{"paths": ["/", "x", "/y", "z"]}]),
            "routes 1: paths.2: should start with: / (fixed path) or ~/ (regex path)",
        ),
        (document(routes=[{"paths": ["/"], "service": 5}]), "routes 1: service: expected a string"),
        (
            document(routes=[{"paths": ["/"], "service": {"host": "x"}}]),
            "routes 1: service: expected a string, or a record with 'id' or 'name'",
        ),
        (document(services=[{"name": "\x1b[2J", "host": "h"}]), "services 1 (name \\x1b[2J): name: invalid value"),
        (
            document(_plugin_configs={"x": {}}, plugins=[{"name": "acl", "_config": "x", "config": [1]}]),
            "plugins 1 (name acl): config: expected a record",
        ),
        (document(consumers=[{"id": A}]), f"consumers 1 (id {A}): at least one of these fields must be non-empty: "),
        (document(consumers=[{"username": "c", "id": "no"}]), "consumers 1 (username c): id: expected a valid UUID"),
        (
            document(hmacauth_credentials=[{"username": "h", "secret": "s"}]),
            "hmacauth_credentials 1 (username h): consumer: required field missing",
        ),
        (
            document(consumers=[{"username": "c", "acls": [{"group": "g", "consumer": "d"}]}]),
            "consumers 1 (username c), acls 1 (group g): consumer: value must be null",
        ),
        (
            document(plugins=[{"name": "sign-request", "config": {"secret_key": "x", "nothing": 1}}]),
            "plugins 1 (name sign-request): config.nothing: unknown field",
        ),
        (
            document(services=[{"name": "foo", "host": "h"}, {"name": "foo", "host": "h"}]),
            "services 2 (name foo): uniqueness violation: 'services' entity with name set to 'foo' already declared",
        ),
        (
            document(services=[{"id": A, "name": "a", "host": "h"}, {"id": A, "name": "b", "host": "h"}]),
            f"services 2 (name b): uniqueness violation: 'services' entity with primary key set to '{A}' already",
        ),
        (
            document(consumers=[{"username": "a", "custom_id": "x"}, {"username": "b", "custom_id": "x"}]),
            "consumers 2 (username b): uniqueness violation: 'consumers' entity with custom_id set to 'x' already",
        ),
        (
            document(
                consumers=[
                    {"username": "a", "keyauth_credentials": [{"key": "s-e-c"}]},
                    {"username": "b", "keyauth_credentials": [{"key": "s-e-c"}]},
                ]
            ),
            "consumers 2 (username b), keyauth_credentials 1: uniqueness violation: 'keyauth_credentials' entity "
            "with key set to '********' already declared",
        ),
    ],
)
def test_documents_that_are_refused(given: Any, problem: str) -> None:
    found = refused(given)
    assert len(found) >= 1 and any(line.startswith(problem) for line in found), found
    assert not any("s-e-c" in line for line in found)


def test_everything_wrong_is_said_at_once_and_nothing_is_kept() -> None:
    found = refused(
        document(
            services=[{"name": "good", "host": "h", "routes": [{"name": "bad"}]}, {"name": "worse", "port": "x"}],
            consumers=[{"username": "c", "hmacauth_credentials": ["x"]}],
        )
    )
    assert [line.rpartition(": ")[0].partition(": ")[0] for line in found] == [
        "services 1 (name good), routes 1 (name bad)",
        "services 2 (name worse)",
        "services 2 (name worse)",
        "consumers 1 (username c), hmacauth_credentials 1",
    ]


def problems(given: Any) -> Any:
    with pytest.raises(Invalid) as caught:
        take(given)
    return caught.value.found


def test_the_tree_of_kong() -> None:
    # From Kong's own tests of /config.
    assert tree(problems({"_format_version": "1.1", "services": [{"port": -12}]})) == {
        "services": [{"host": "required field missing", "port": "value should be between 0 and 65535"}]
    }
    again = {"name": "foo", "host": "h"}
    assert tree(problems(document(services=[again, again]))) == {
        "services": [None, "uniqueness violation: 'services' entity with name set to 'foo' already declared"]
    }
    nested = document(
        services=[{**again, "routes": [{"paths": ["/"]}, {"paths": ["x"], "plugins": [{"name": "nope"}]}]}]
    )
    found = tree(problems(nested))["services"][0]["routes"]
    assert found[0] is None and found[1]["paths"] == ["should start with: / (fixed path) or ~/ (regex path)"]
    assert found[1]["plugins"][0]["name"].startswith("plugin 'nope' not enabled")


def test_flattened_errors() -> None:
    given = document(consumers=[{"username": "ok"}, {"username": "bobby", "not_allowed": True, "tags": ["t"]}], x=1)
    items, rest = flattened(problems(given))
    assert rest == {"x": "unknown field"}
    assert items == [
        {
            "entity_type": "consumer",
            "entity": {"username": "bobby", "not_allowed": True, "tags": ["t"]},
            "entity_tags": ["t"],
            "errors": [{"type": "field", "field": "not_allowed", "message": "unknown field"}],
        }
    ]


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(data=st.data())
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
def test_wrong_types_anywhere_are_refused_or_taken(data: st.DataObject, db: None) -> None:
    """Put any JSON in any place of a good file: it is imported or refused, never anything else."""
    whole = file()
    place: Any = whole
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        place[key] = data.draw(_JSON)
        break
    try:
        take(whole, dry_run=True)
    except Invalid as error:
        assert error.problems and tree(error.found) is not None and flattened(error.found) is not None
