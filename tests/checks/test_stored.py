"""Checks that ask the database, which they do only when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import Client, override_settings
from pytest_django.fixtures import DjangoAssertNumQueries

from hmac_gateway.checks import stored
from tests.checks.test_protect import OURS
from tests.settings import HMAC_GATEWAY
from tests.support.checks import found, with_settings
from tests.support.served import ENCRYPTION_KEY, ROOT

DEFAULT = ["default"]
GOOD = {"signed_headers": ["@request-target", "date"], "allowed_algorithms": ["hmac-sha256"]}


def ids(deploy: bool = False) -> list[str]:
    return [name.partition(".")[2] for name in found(deploy=deploy, databases=DEFAULT)]


@pytest.fixture
def route(db: None) -> Any:
    return apps.get_model("hmac_proxy.Route").objects.create(id="r", paths=["/*"], this_site=True)


@pytest.fixture
def plugin(route: Any) -> Any:
    return apps.get_model("hmac_proxy.Plugin").objects.create(name="hmac-auth", route=route, config=GOOD)


def change(row: Any, **values: Any) -> None:
    type(row).objects.filter(pk=row.pk).update(**values)


@pytest.mark.django_db
def test_no_check_asks_the_database_by_itself(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0), with_settings(CREDENTIALS={"a": {"secret_key": "x" * 32}}):
        assert found(deploy=True) == {}


def test_site_routes_without_the_middleware(route: Any) -> None:
    assert found() == {} and ids() == ["W009"]
    with override_settings(MIDDLEWARE=OURS):
        assert ids() == []
    change(route, enabled=False)
    assert ids() == []
    change(route, enabled=True, this_site=False)
    assert ids() == []


def test_site_routes_behind_what_reads_bodies(plugin: Any) -> None:
    with override_settings(MIDDLEWARE=["tests.checks.test_middleware.ReadsForm", *OURS]):
        assert ids() == []
        change(plugin, config={**GOOD, "validate_request_body": True})
        assert ids() == ["W008"]


def test_site_routes_in_settings_only_mode(route: Any) -> None:
    given = {**HMAC_GATEWAY, "CREDENTIALS": {"a": {"secret_key": "x" * 32}}}
    with override_settings(MIDDLEWARE=OURS, HMAC_GATEWAY=given):
        messages = found(databases=DEFAULT)
    assert list(messages) == ["hmac_gateway.W009"] and "CREDENTIALS" in messages["hmac_gateway.W009"].msg


def test_site_routes_that_another_host_evades(route: Any) -> None:
    with override_settings(MIDDLEWARE=OURS, ALLOWED_HOSTS=["*"]):
        assert ids() == []
        change(route, hosts=["api.example.com"])
        assert ids() == ["W019"]
    with override_settings(MIDDLEWARE=OURS, ALLOWED_HOSTS=["api.example.com"]):
        assert ids() == []


def test_site_routes_where_nobody_looks_at_the_host(route: Any) -> None:
    with override_settings(MIDDLEWARE=[name for name in OURS if "CommonMiddleware" not in name]):
        assert ids() == []
        change(route, hosts=["api.example.com"])
        assert ids() == ["W022"]


def test_hosts_are_compared_by_common_middleware_only() -> None:
    common = "django.middleware.common.CommonMiddleware"
    with override_settings(ROOT_URLCONF="tests.checks.test_middleware", ALLOWED_HOSTS=["api.example.com"]):
        for chain, status in (([common], 400), ([], 200)):
            with override_settings(MIDDLEWARE=chain):
                assert Client(headers={"host": "other.example.com"}).get("/lazy/x").status_code == status


@pytest.mark.django_db
def test_consumers_that_nobody_reads() -> None:
    with with_settings(CREDENTIALS={"a": {"secret_key": "x" * 32}}):
        assert ids() == []
        apps.get_model("hmac_consumers.Consumer").objects.create(username="stored")
        assert ids() == ["W015"]
    assert ids() == []


def test_stored_policies_when_deployed(plugin: Any) -> None:
    with override_settings(MIDDLEWARE=OURS):
        assert ids(deploy=True) == []
        change(plugin, config={**GOOD, "signed_headers": ["date"]})
        assert ids() == [] and ids(deploy=True) == ["W012"]
        change(plugin, config={**GOOD, "clock_skew": 3600})
        assert ids() == [] and ids(deploy=True) == ["W018"]


def test_warnings_only_so_that_migrate_can_mend_it(plugin: Any) -> None:
    change(plugin, config={})
    messages = found(deploy=True, databases=DEFAULT)
    assert len(messages) >= 3 and all(message.level == 30 for message in messages.values())
    call_command("migrate", verbosity=0, stderr=StringIO())


def test_a_table_older_than_its_model(plugin: Any) -> None:
    table = apps.get_model("hmac_proxy.Plugin")._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME COLUMN config TO was_config")
    with override_settings(MIDDLEWARE=OURS):
        assert ids(deploy=True) == []
    with pytest.raises(DatabaseError):
        list(type(plugin).objects.all())


def test_without_the_two_apps(monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    monkeypatch.setattr("hmac_gateway.checks.stored.apps.app_configs", {})
    assert list(stored.check_plugins(None, databases=DEFAULT)) == []


@pytest.mark.parametrize(
    ("collation", "exact"),
    [
        ("utf8mb4_bin", True),
        ("utf8mb4_0900_as_cs", True),
        ("utf8mb4_general_ci", False),
        ("utf8mb4_uca1400_ai_ci", False),
        ("utf8mb3_bin", False),
        ("latin1_bin", False),
    ],
)
def test_collations_that_tell_letters_apart(collation: str, exact: bool) -> None:
    assert stored._exact(collation) is exact


@pytest.mark.service
def test_mariadb_that_does_not_tell_letters_apart(mariadb_url: str) -> None:
    where = urlsplit(mariadb_url)
    name = where.path[1:]
    server = import_module("MySQLdb").connect(host=where.hostname, user=where.username, passwd="", autocommit=True)
    environment = {**os.environ, "DATABASE_URL": mariadb_url, "HMAC_GATEWAY_ENCRYPTION_KEYS": ENCRYPTION_KEY}

    def said() -> str:
        command = [sys.executable, "manage.py", "check", "--database", "default"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True,
            text=True,
        )
        return done.stderr + done.stdout

    assert "W021" not in said()
    # Before the first migrate, tables will get the database's.
    server.query(f"ALTER DATABASE `{name}` COLLATE utf8mb4_general_ci")
    assert "(hmac_gateway.W021)" in (first := said()) and "default utf8mb4_general_ci" in first
    server.query(f"CREATE TABLE `{name}`.hmac_proxy_route (id varchar(64), name varchar(64) COLLATE utf8mb4_bin)")
    second = said()
    assert "'default': hmac_proxy_route.id.\n" in second
    server.query(f"ALTER TABLE `{name}`.hmac_proxy_route CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    assert "W021" not in said()
    server.close()
