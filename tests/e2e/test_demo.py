"""The first minutes of a newcomer: hmac_demo, its two curl commands, a second start, and what it will not touch."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError

from hmac_gateway.environment import make_env
from tests.support.served import ADMIN_KEY, ENCRYPTION_KEY, ROOT, free_port
from tests.walkthroughs.guide import curls, run_curl


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """A running demo on free ports and a database in `folder`; what it printed."""
    output = folder / "output"
    ports = [f"{option}=127.0.0.1:{free_port()}" for option in ("--bind", "--admin-bind", "--echo-bind")]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "hmac_demo", *ports],
            cwd=ROOT,
            env={
                **os.environ,
                "HMAC_GATEWAY_NO_DOTENV": "1",
                "SECRET_KEY": "only-for-tests-" + "x" * 40,
                "HMAC_GATEWAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
                "HMAC_GATEWAY_ADMIN_KEY": ADMIN_KEY,
                "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while "ready; stop with Ctrl-C" not in output.read_text():
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        yield output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(40)
        finally:
            process.kill()
    assert code == 0, output.read_text()


def test_demo_prints_a_signed_curl_that_is_answered_and_starts_again(tmp_path: Path) -> None:
    with demo(tmp_path) as printed:
        signed, unsigned = curls(printed)
        answer = run_curl(signed)
        assert answer.startswith("HTTP/1.1 200 ")
        body = json.loads(answer[answer.index("{") :])
        assert body["headers"]["X-Consumer-Username"] == "hmac-auth-consumer"
        assert run_curl(unsigned).startswith("HTTP/1.1 401 ")
        assert run_curl(signed.replace("/anything/hmac-auth", "/anything/hmac-auth?x=1")).startswith("HTTP/1.1 401 ")
        assert "(shown only now)" in printed
        assert "/admin/" in printed
        assert ENCRYPTION_KEY not in printed and ADMIN_KEY not in printed and "my-hmac-secret" not in printed
    # Other ports, the echo's among them: the node follows.
    with demo(tmp_path) as printed:
        signed, unsigned = curls(printed)
        assert run_curl(signed).startswith("HTTP/1.1 200 ")
        assert run_curl(unsigned).startswith("HTTP/1.1 401 ")
        assert "password as printed at the first start" in printed


def counts() -> dict[str, int]:
    labels = ["hmac_proxy.Route", "hmac_proxy.Service", "hmac_proxy.Upstream", "hmac_proxy.Node", "hmac_proxy.Plugin"]
    labels += ["hmac_consumers.Consumer", "hmac_consumers.Credential", "auth.User"]
    return {label: apps.get_model(label)._default_manager.count() for label in labels}


def prepare(**options: Any) -> None:
    with open(os.devnull, "w") as nowhere:
        call_command("hmac_demo", no_serve=True, stdout=nowhere, **options)


@pytest.mark.django_db
def test_a_second_start_makes_nothing_twice() -> None:
    prepare()
    first = counts()
    assert set(first.values()) == {1}
    prepare(echo_bind="127.0.0.1:9999")
    assert counts() == first
    assert apps.get_model("hmac_proxy.Node")._default_manager.get().port == 9999


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("hmac_proxy.Route", {"id": "orders", "paths": ["/orders"]}),
        ("hmac_proxy.Service", {"id": "orders"}),
        ("hmac_consumers.Consumer", {"username": "partner"}),
        # The guide followed by hand, to a real upstream.
        ("hmac_proxy.Service", {"id": "hmac-auth-httpbin-service"}),
        ("hmac_proxy.Route", {"id": "hmac-auth-route", "paths": ["/anything/hmac-auth"]}),
    ],
)
def test_other_configuration_is_left_alone(label: str, fields: dict[str, Any]) -> None:
    apps.get_model(label)._default_manager.create(**fields)
    before = counts()
    with pytest.raises(CommandError, match="holds other configuration"):
        prepare()
    assert counts() == before


def test_addresses_must_differ() -> None:
    port = free_port()
    with pytest.raises(CommandError, match=f"cannot both listen on port {port}"):
        same = f"127.0.0.1:{port}"
        call_command("hmac_demo", bind=same, admin_bind=same, echo_bind=f"127.0.0.1:{free_port()}")


def test_env_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    before = os.umask(0)
    try:
        assert make_env(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    lines = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    Fernet(lines["HMAC_GATEWAY_ENCRYPTION_KEYS"])
    assert len(lines["SECRET_KEY"]) >= 50
    assert len(lines["HMAC_GATEWAY_ADMIN_KEY"]) >= 24
    assert not make_env(path)
    assert path.read_text() == text
    other = tmp_path / "other"
    make_env(other)
    values = dict(line.split("=", 1) for line in other.read_text().splitlines() if not line.startswith("#"))
    assert all(values[name] != lines[name] for name in lines)
