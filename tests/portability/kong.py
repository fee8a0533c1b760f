"""Imports and exports in the form of kong.yml, for the tests of portability."""

from __future__ import annotations

import copy
import json
from difflib import unified_diff
from typing import Any

from django.apps import apps

from hmac_gateway import sealing
from hmac_gateway.portability import text
from hmac_gateway.portability.kong_export import export_document
from hmac_gateway.portability.kong_import import import_document
from hmac_gateway.portability.report import Refused, Report

from .support import CONFIGURATION, HERE, everything, wipe


def file() -> Any:
    """The hand-written kong.yml."""
    return text.load((HERE / "kong.yml").read_bytes(), end=False)


def document(**lists: Any) -> dict[str, Any]:
    return {"_format_version": "3.0", **lists}


def load(written: str) -> Report:
    """Import YAML text."""
    return take(text.load(written.encode(), end=False))


def take(given: Any, **options: Any) -> Report:
    """Import plain values."""
    before = copy.deepcopy(given)
    report = import_document(given, actor="tester", **options)
    assert given == before
    return report


def refused(given: Any, **options: Any) -> list[str]:
    """The reasons for which plain values are refused; nothing was written."""
    before = everything()
    try:
        take(given, **options)
    except Refused as error:
        assert everything() == before
        return error.problems
    raise AssertionError("it was imported")


def yaml_of(opened: bool = True) -> str:
    return text.dump_yaml(export_document(opened).document, "test", end=False)


def again(opened: bool = True) -> str:
    """What an export gives after it was imported into an empty configuration; both are the same text."""
    first = yaml_of(opened)
    rows = held()
    wipe()
    given = text.load(first.encode(), end=False)
    report = take(given)
    assert not report.left and not report.skipped
    same(first, yaml_of(opened))
    for label, found in held().items():
        same("\n".join(rows[label]), "\n".join(found))
    before = everything()
    assert take(given).changes == []
    assert everything() == before
    return first


def same(first: str, second: str) -> None:
    """Two texts are one."""
    assert first == second, "\n".join(unified_diff(first.splitlines(), second.splitlines(), lineterm="", n=1))


#: Columns that say when a row was written, or how a secret was sealed this time.
_MOMENTS = frozenset(["created_at", "updated_at", "changed_at_version", "last_used_at"])


def held() -> dict[str, list[str]]:
    """Every row of the configuration, with secrets opened, without moments."""
    found: dict[str, list[str]] = {}
    for label in CONFIGURATION:
        rows: Any = apps.get_model(label)._base_manager.order_by("pk")
        found[label] = []
        for row in rows:
            values = {column.attname: getattr(row, column.attname) for column in row._meta.concrete_fields}
            for moment in _MOMENTS:
                values.pop(moment, None)
            if "sealed_secret" in values:
                values["sealed_secret"] = row.get_secret()
                values["sealed_previous_secret"] = bool(row.sealed_previous_secret)
            if label == "hmac_proxy.Plugin":
                values["config"] = {**row.config, **sealing.secrets_of(row.name, row.config)}
            found[label].append(json.dumps(values, sort_keys=True, default=str))
    return found
