"""The migrations say what the models say, and stay usable where the apps have other import names."""

from __future__ import annotations

import inspect
import re

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

LABELS = ("hmac_gateway", "hmac_consumers", "hmac_proxy")


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.parametrize("label", LABELS)
def test_migrations_name_labels_only(label: str) -> None:
    loader = MigrationLoader(None, ignore_no_migrations=True)
    found = [migration for key, migration in loader.disk_migrations.items() if key[0] == label]
    assert found
    for migration in found:
        text = inspect.getsource(inspect.getmodule(type(migration)) or type(migration))
        assert not re.search(r"\b(?:import|from)\s+(?:\w+\.)*(?:consumers|proxy)\b", text)
        assert not re.search(r"(?<![\w'])(?:consumers|proxy)\.\w", text)


def test_the_order_of_dependency() -> None:
    graph = MigrationLoader(None, ignore_no_migrations=True).graph
    plan = [key[0] for key in graph.forwards_plan(("hmac_proxy", "0001_initial")) if key[0] in LABELS]
    assert list(dict.fromkeys(plan)) == list(LABELS)


@pytest.mark.django_db
def test_every_table_has_our_prefix() -> None:
    tables = {model._meta.db_table for label in LABELS for model in apps.get_app_config(label).get_models()}
    assert all(table.startswith(LABELS) for table in tables)
    assert tables <= set(connection.introspection.table_names())
