"""Services the tests use where they run: a database of its own per module, dropped at its end.

A missing service skips with the reason in words; where HMAC_GATEWAY_TEST_SERVICES=required (`.ci/run`) it fails.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.services import missing


def _reachable(name: str, port: int) -> None:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError as error:
        missing(f"{name} does not answer on 127.0.0.1:{port}: {error}")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        missing(f"the Python package for it is not installed: {error}")


def _name() -> str:
    return f"hmac_gateway_test_{os.getpid()}_{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """A fresh PostgreSQL database as a DATABASE_URL."""
    _reachable("PostgreSQL", 5432)
    psycopg = _package("psycopg")
    name = _name()
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"postgres://postgres@127.0.0.1:5432/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[str]:
    """A fresh MariaDB database as a DATABASE_URL."""
    _reachable("MariaDB", 3306)
    driver = _package("MySQLdb")
    name = _name()
    connection = driver.connect(host="127.0.0.1", user="root", passwd="", autocommit=True)
    try:
        connection.query(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        yield f"mysql://root@127.0.0.1:3306/{name}"
        connection.query(f"DROP DATABASE `{name}`")
    finally:
        connection.close()


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """An empty numbered Redis database."""
    _reachable("Redis", 6379)
    redis = _package("redis")
    for number in range(15, 0, -1):
        client = redis.Redis(port=6379, db=number)
        # Claimed in one step, so that two runs at a time do not meet; given back by itself if this one is killed.
        if client.dbsize() == 0 and client.set("hmac-gateway-test", os.getpid(), nx=True, ex=900):
            break
        client.close()
    else:
        missing("no empty database is left in Redis on 127.0.0.1:6379")
    try:
        yield f"redis://127.0.0.1:6379/{number}"
    finally:
        client.flushdb()
        client.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    from tests.support.installed import build

    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel, what it declares, and servers."""
    from tests.support.installed import BESIDES, install

    return install(tmp_path_factory.mktemp("installed") / "venv", wheel, *BESIDES)
