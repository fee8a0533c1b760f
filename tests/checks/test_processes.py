"""How many processes serve, as embedding hosts say it, and a server that loses the request target."""

from __future__ import annotations

import pytest

from hmac_gateway.stores import processes
from tests.support.checks import found, with_settings


@pytest.mark.parametrize(
    ("name", "said", "count"),
    [
        ("WEB_CONCURRENCY", "3", 3),
        ("WEB_CONCURRENCY", "many", 1),
        ("GUNICORN_CMD_ARGS", "--bind=127.0.0.1 --workers=4", 4),
        ("GUNICORN_CMD_ARGS", "-w 5 --threads 2", 5),
        ("GUNICORN_CMD_ARGS", "-w5", 5),
        ("GUNICORN_CMD_ARGS", "--workers 6", 6),
        ("GUNICORN_CMD_ARGS", "--worker-class gthread", 1),
        ("GUNICORN_CMD_ARGS", "--workers 'unbalanced", 1),
        ("GRANIAN_WORKERS", "7", 7),
    ],
)
def test_servers_say_it_in_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, said: str, count: int) -> None:
    monkeypatch.setenv(name, said)
    assert processes() == count
    messages = found()
    assert list(messages) == (["hmac_gateway.W001"] if count > 1 else [])
    assert count == 1 or f"{count} processes" in messages["hmac_gateway.W001"].msg


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (["/venv/bin/gunicorn", "-w", "4", "site.wsgi"], 4),
        (["/venv/lib/gunicorn/__main__.py", "--workers=3", "site.wsgi"], 3),
        (["uvicorn", "--workers", "2", "site.asgi:application"], 2),
        (["manage.py", "hmac_serve", "--workers", "4"], 1),
        ([], 1),
    ],
)
def test_servers_say_it_on_their_command_line(monkeypatch: pytest.MonkeyPatch, line: list[str], count: int) -> None:
    monkeypatch.setattr("sys.argv", line)
    assert processes() == count


def test_granian_over_wsgi_loses_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANIAN_INTERFACE", "wsgi")
    assert list(found()) == ["hmac_gateway.W017"]
    monkeypatch.setenv("GRANIAN_INTERFACE", "asgi")
    assert found() == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"COUNTER_STORE": "memcached://h:hush@x"}, "'memcached'"),
        ({"COUNTER_STORE": "redis://127.0.0.1/1"}, ""),
        ({"REPLAY_STORE": "redis://127.0.0.1/1"}, ""),
        ({}, ""),
    ],
)
def test_limits_are_counted_in_a_redis(settings: dict[str, str], said: str) -> None:
    with with_settings(**settings):
        messages = found()
    assert list(messages) == (["hmac_gateway.E006"] if said else [])
    assert not said or (said in messages["hmac_gateway.E006"].msg and "hush" not in str(messages))


def test_the_package_for_counting_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmac_gateway.checks.processes.find_spec", lambda name: None)
    with with_settings(COUNTER_STORE="redis://127.0.0.1/1"):
        messages = found()
    assert "COUNTER_STORE" in messages["hmac_gateway.E006"].msg
