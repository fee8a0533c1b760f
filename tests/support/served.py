"""A gateway as users run it, in processes of its own, on a database of its own.

`Served` migrates, starts `manage.py hmac_serve` on free loopback ports and is configured over the admin REST API.
With `frozen_at` the gateway alone is served at a fixed time by `tests.support.frozen`. Everything it starts ends with
its `with` block.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import django

ROOT = Path(__file__).resolve().parent.parent.parent
ADMIN_KEY = "test-admin-key-0123456789abcdef"
ENCRYPTION_KEY = "dGVzdC1rZXktdGVzdC1rZXktdGVzdC1rZXktdGVzdDE="


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """An HTTP answer: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None, timeout: float = 10
) -> Answer:
    """One HTTP request on a connection of its own; any status is an answer."""
    made = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(made, timeout=timeout) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def signed(
    method: str,
    target: str,
    *,
    key_id: str = "client-1",
    secret: str = "my-hmac-secret",
    listed: Sequence[str] = ("@request-target", "date"),
    headers: dict[str, str] | None = None,
    at: float | None = None,
    algorithm: str = "sha256",
) -> dict[str, str]:
    """Headers of a signed request, computed without any code of the product. `headers` may hold more to be signed."""
    sent = {"date": formatdate(time.time() if at is None else at, usegmt=True)}
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    lines = [key_id]
    for name in listed:
        lines.append(f"{method} {target}" if name == "@request-target" else f"{name}: {sent[name]}")
    string = "\n".join([*lines, ""])
    mac = base64.b64encode(hmac.new(secret.encode(), string.encode(), algorithm).digest()).decode()
    sent["authorization"] = (
        f'Signature keyId="{key_id}",algorithm="hmac-{algorithm}",headers="{" ".join(listed)}",signature="{mac}"'
    )
    return sent


def digest_of(body: bytes) -> str:
    """The Digest header of a body."""
    return "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode()


def migrated(manage: Callable[..., str]) -> Path:
    """A migrated SQLite database to be copied: migrating takes two seconds of a core, and dozens of tests want one."""
    content = hashlib.sha256(django.__version__.encode())
    for folder in ("hmac_gateway", "consumers", "proxy"):
        for file in sorted((ROOT / folder / "migrations").glob("*.py")):
            content.update(file.read_bytes())
    made = Path(tempfile.gettempdir()) / f"hmac-gateway-migrated-{content.hexdigest()[:24]}.sqlite3"
    if not made.exists():
        with tempfile.TemporaryDirectory(prefix="hmac-gateway-migrated-") as folder:
            new = Path(folder) / "db.sqlite3"
            manage("migrate", "-v0", database_url=f"sqlite:///{new}")
            # Whoever else does the same puts the same there.
            os.replace(new, made)
    return made


class Served:
    """A served gateway. `base` is the gateway's address, `console` the console's; both as http://host:port.

    `arguments` are added to hmac_serve's; `environment` to its environment. `ports` are waited for, too.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        database_url: str | None = None,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        frozen_at: float | None = None,
        ports: Sequence[int] = (),
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hmac-gateway-test-")
        self.folder = Path(self._folder.name)
        self.port, self.console_port = free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.console = f"http://127.0.0.1:{self.console_port}"
        self._workers = workers
        self._arguments = list(arguments)
        self._frozen_at = frozen_at
        self._ports = ports
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HMAC_GATEWAY_", "DJANGO_"))},
            "DJANGO_SETTINGS_MODULE": "hmac_gateway.settings",
            "HMAC_GATEWAY_NO_DOTENV": "1",
            "SECRET_KEY": "only-for-tests-" + "x" * 40,
            "HMAC_GATEWAY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "HMAC_GATEWAY_ADMIN_KEY": ADMIN_KEY,
            "DATABASE_URL": database_url or f"sqlite:///{self.folder}/db.sqlite3",
            **(environment or {}),
        }
        self.log = self.folder / "log"
        #: Whether the console's operator was made, as `console.Console` does.
        self.operators = False
        self.process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            if f"{self.folder}/db.sqlite3" in self.environment["DATABASE_URL"]:
                shutil.copy(migrated(self.manage), self.folder / "db.sqlite3")
            else:
                self.manage("migrate", "-v0")
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    # --- processes ---

    def manage(
        self, *arguments: str, input: str | None = None, check: bool = True, database_url: str | None = None
    ) -> str:
        """Run a management command to its end; its output."""
        environment = self.environment if database_url is None else {**self.environment, "DATABASE_URL": database_url}
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            input=input,
            timeout=60,
        )
        if check and result.returncode:
            raise AssertionError(f"{arguments}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result.stdout + ("" if check else result.stderr)

    def python(self, code: str) -> str:
        """Run Python with Django set up on the served database, in a process of its own."""
        return self.manage("shell", "--no-imports", "-c", code)

    def start(self) -> None:
        """Start serving and wait until requests are answered."""
        with self.log.open("ab") as log:
            console = [sys.executable, "manage.py", "hmac_serve", "--admin-bind", f"127.0.0.1:{self.console_port}"]
            command = [*console, "--bind", f"127.0.0.1:{self.port}", "--workers", str(self._workers), *self._arguments]
            if self._frozen_at is not None:
                # The real console beside a gateway whose clock stands still.
                other = [*console, "--bind", f"127.0.0.1:{free_port()}"]
                self._others.append(self._spawn(other, log))
                command = [sys.executable, "-m", "tests.support.frozen", str(self._frozen_at), str(self.port)]
            self.process = self._spawn(command, log)
        for port in (self.port, self.console_port, *self._ports):
            self._wait_for(port)

    def _spawn(self, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                ended = self.process is not None and self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"nothing listens on {port}:\n{self.log.read_text()}") from None
                time.sleep(0.05)

    def stop(self) -> int | None:
        """End everything with SIGTERM; the exit code of what was served."""
        code = None
        for process in (self.process, *self._others):
            if process is None:
                continue
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdin is not None:
                process.stdin.close()
            code = process.returncode if process is self.process else code
        self.process, self._others = None, []
        return code

    def worker_pids(self) -> list[int]:
        """Process ids of the gateway workers, as they report themselves."""
        return [worker["pid"] for worker in self.readyz().json()["workers"] if worker["role"] == "gateway"]

    # --- configuration and requests ---

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """A call of the admin API, below /apisix/admin."""
        return request(
            f"{self.console}/apisix/admin{path}",
            method,
            {"X-API-KEY": ADMIN_KEY, "Content-Type": "application/json"},
            None if body is None else json.dumps(body).encode(),
        )

    def put(self, path: str, body: Any) -> Any:
        """PUT an object that must be accepted."""
        answer = self.admin("PUT", path, body)
        assert answer.status in (200, 201), (answer.status, answer.body)
        return answer.json()

    def readyz(self) -> Answer:
        """The console's /readyz."""
        return request(self.console + "/readyz")

    def settle(self) -> None:
        """Wait until every worker reports that it serves the newest version."""
        deadline = time.monotonic() + 10
        while True:
            report = self.readyz().json()
            versions = {worker["version"] for worker in report["workers"] if worker["role"] == "gateway"}
            if versions == {report["version"]}:
                return
            assert time.monotonic() < deadline, report
            time.sleep(0.05)

    def setup(
        self,
        node: str,
        *,
        path: str = "/*",
        plugin: dict[str, Any] | None = None,
        upstream: dict[str, Any] | None = None,
        route: dict[str, Any] | None = None,
    ) -> None:
        """One route `r` to `node` ("host:port"), with hmac-auth unless `plugin` is None, and the seed's credential."""
        self.put("/upstreams/u", {"type": "roundrobin", "nodes": {node: 1}, **(upstream or {})})
        plugins = {} if plugin is None else {"hmac-auth": plugin}
        self.put("/routes/r", {"uri": path, "upstream_id": "u", "plugins": plugins, **(route or {})})
        self.put("/consumers/hmac-auth-consumer", {"username": "hmac-auth-consumer"})
        self.put(
            "/consumers/hmac-auth-consumer/credentials/cred",
            {"plugins": {"hmac-auth": {"key_id": "client-1", "secret_key": "my-hmac-secret"}}},
        )
        self.settle()

    def get(self, target: str, headers: dict[str, str] | None = None, method: str = "GET", **more: Any) -> Answer:
        """A request to the gateway."""
        return request(self.base + target, method, headers, **more)
