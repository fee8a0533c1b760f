"""A site of somebody else's: the wheel in an environment of its own, a copy of an example outside the checkout.

    with Site(environment, "existing_site", overlay=True) as site:
        site.manage("migrate")
        with site.serve("gunicorn-gthread"): ...

`build` makes the wheel, `install` an environment that holds it and what it declares, and nothing else but the servers.
The files of dependencies are taken from this environment, so that nothing is downloaded but the build tool.
"""

from __future__ import annotations

import contextlib
import importlib.metadata as metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.served import ROOT, free_port
from tests.support.services import missing

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "hmac_gateway", "consumers", "proxy")
#: What a site has besides: servers, what partners' scripts import, and what hmacproxy's file mode takes.
BESIDES = ("gunicorn", "granian", "uvicorn", "httpx", "starlette")
IGNORED = shutil.ignore_patterns("__pycache__", "*.sqlite3*", "encryption.key", ".venv")
SERVERS = {
    "gunicorn-sync": "gunicorn -b 127.0.0.1:{port} --worker-class sync --workers 2 {project}.wsgi",
    "gunicorn-gthread": "gunicorn -b 127.0.0.1:{port} --worker-class gthread --threads 8 {project}.wsgi",
    "granian": "granian --interface asgi --host 127.0.0.1 --port {port} {project}.asgi:application",
    "uvicorn": "uvicorn --host 127.0.0.1 --port {port} --lifespan off {project}.asgi:application",
}
PROJECTS = {"existing_site": "utility", "drf_api": "orders_api"}


def build(folder: Path) -> Path:
    """The wheel, built from a copy: what a build leaves behind does not belong into the checkout."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=IGNORED)
        else:
            shutil.copy(path, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "-w", folder, source], capture_output=True, text=True, timeout=300)
    if done.returncode:
        if "No matching distribution" in done.stderr or "Connection" in done.stderr:
            missing(f"the package index that has setuptools does not answer: {done.stderr[-300:]}")
        raise AssertionError(done.stderr)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path, wheel: Path, *besides: str) -> Path:
    """An environment with the wheel, the closure of its requirements, and `besides`; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    (own,) = metadata.distributions(path=[str(packages)], name="django-hmac-gateway")
    left = [*map(Requirement, own.requires or ()), *map(Requirement, besides)]
    done = {canonicalize_name("django-hmac-gateway")}
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        if name in done or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        done.add(name)
        found = metadata.distribution(wanted.name)
        assert wanted.specifier.contains(found.version, prereleases=True), (wanted, found.version)
        _copy(found, packages)
        left += map(Requirement, found.requires or ())
    return python


def _copy(found: metadata.Distribution, packages: Path) -> None:
    for file in found.files or ():
        # Compiled files come along: without them every process that a test starts would compile Django anew.
        source, target = Path(str(found.locate_file(file))), packages / str(file)
        if ".." in file.parts or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)


class Site:
    """A copy of an example. With `overlay`, tests.support.overlay lies beside it and its settings are used."""

    def __init__(self, python: Path, example: str, *, overlay: bool = False) -> None:
        self.python = python
        self.project = PROJECTS[example]
        self._folder = tempfile.TemporaryDirectory(prefix="hmac-gateway-site-")
        self.folder = Path(self._folder.name) / example
        shutil.copytree(ROOT / "examples" / example, self.folder, ignore=IGNORED)
        taken = ("HMAC_GATEWAY_", "DJANGO_", "PYTHON", "PYTEST", "WEB_CONCURRENCY", "SECRET_KEY", "DATABASE_URL")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(taken)}
        self.environment |= {"SHOP_SECRET": "my-hmac-secret", "PYTHONDONTWRITEBYTECODE": "1"}
        if overlay:
            for path in (Path(__file__).parent / "overlay").glob("*.py"):
                shutil.copy(path, self.folder / path.name)
            self.environment["DJANGO_SETTINGS_MODULE"] = "more_settings"
        self.port = 0
        self.interface = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def run(self, *arguments: str, input: str | None = None) -> str:
        """Run this site's Python with warnings as errors; standard output and error."""
        done = subprocess.run(
            [self.python, "-W", "error", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            input=input,
            timeout=120,
        )
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def manage(self, *arguments: str) -> str:
        """Run manage.py."""
        return self.run("manage.py", *arguments)

    def shell(self, code: str) -> str:
        """Run Python with Django set up, in a process of its own."""
        return self.manage("shell", "--no-imports", "-c", code)

    @contextlib.contextmanager
    def spawn(self, command: Sequence[str], port: int = 0) -> Iterator[subprocess.Popen[str]]:
        """Run a module until the block ends; with `port`, wait until it listens there."""
        log = self.folder / "log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [self.python, *command],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE if not port else errors,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 30
            while port:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise AssertionError(f"{command}:\n{log.read_text()}") from None
                    time.sleep(0.05)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @contextlib.contextmanager
    def serve(self, server: str) -> Iterator[str]:
        """Serve the site; its base URL."""
        self.port = free_port()
        self.interface = f"{server} {'asgi' if '.asgi' in SERVERS[server] else 'wsgi'}"
        command = SERVERS[server].format(port=self.port, project=self.project)
        with self.spawn(["-m", *command.split()], self.port):
            yield f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def prepared(python: Path) -> Iterator[Site]:
    """The larger example, migrated, with consumers, a route, and the service behind it; tests.support.overlay too."""
    with Site(python, "existing_site", overlay=True) as site:
        make_key(site)
        port = free_port()
        site.manage("migrate", "-v0")
        site.run("seed.py", str(port))
        with site.spawn(f"-m uvicorn --port {port} --log-level warning hmac_gateway.echo:echo".split(), port):
            yield site


def make_key(site: Site) -> None:
    """The example's encryption key."""
    make = "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"
    (site.folder / "encryption.key").write_text(site.run("-c", make))
