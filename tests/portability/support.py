"""Imports, exports, and what the database holds, for the tests of portability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core import serializers

from hmac_gateway.portability import text
from hmac_gateway.portability.apisix_export import Exported, export_document
from hmac_gateway.portability.apisix_import import import_document
from hmac_gateway.portability.report import Refused, Report

HERE = Path(__file__).parent
CONFIGURATION = [
    "hmac_proxy.Node",
    "hmac_proxy.Plugin",
    "hmac_proxy.Route",
    "hmac_proxy.Service",
    "hmac_proxy.Upstream",
    "hmac_proxy.PluginConfig",
    "hmac_consumers.Credential",
    "hmac_consumers.ConsumerAcl",
    "hmac_consumers.Consumer",
    "hmac_consumers.ConsumerGroup",
]


def load(written: str, end: bool = True) -> Report:
    """Import YAML text."""
    return take(text.load((written + ("\n#END\n" if end else "")).encode()))


def take(document: Any, **options: Any) -> Report:
    """Import plain values."""
    return import_document(document, actor="tester", **options)


def refused(document: Any, **options: Any) -> list[str]:
    """The reasons for which plain values are refused; nothing was written."""
    before = everything()
    try:
        take(document, **options)
    except Refused as error:
        assert everything() == before
        return error.problems
    raise AssertionError("it was imported")


def exported(opened: bool = True) -> Exported:
    return export_document(opened)


def yaml_of(opened: bool = True) -> str:
    return text.dump_yaml(exported(opened).document, "test")


def wipe() -> None:
    """An empty configuration."""
    for label in CONFIGURATION:
        apps.get_model(label)._default_manager.all().delete()


def everything() -> str:
    """Every row of every table."""
    rows: list[Any] = []
    for model in apps.get_models(include_auto_created=True):
        rows.extend(json.loads(serializers.serialize("json", model._base_manager.order_by("pk"))))
    return json.dumps(rows, indent=1)


def again(opened: bool = True) -> str:
    """What an export gives after it was imported into an empty configuration; both are the same text."""
    first = yaml_of(opened)
    wipe()
    document = text.load(first.encode())
    report = take(document)
    assert not report.left and not report.skipped
    second = yaml_of(opened)
    assert second == first
    before = everything()
    assert take(document).changes == []
    assert everything() == before
    return first
