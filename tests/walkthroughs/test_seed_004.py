"""hmacproxy's README, command by command: two shells and a curl, what must fail, and the other modes.

The page lost what it had in angle brackets, such as an upstream's URL. Ports are free ones in place of 8080 and 8081.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.hmacproxied import sign
from tests.support.raw_client import RawClient
from tests.support.served import ROOT, free_port
from tests.walkthroughs.guide import run_curl, text_of

TEXT = text_of("seed_004.txt")
VERIFIED = "/mbland/hmacproxy"


def command(section: str) -> str:
    """The command line behind a heading, continuation and all; the ports are left open."""
    lines = iter(TEXT.split(f"{section}\n", 1)[1].splitlines())
    text = next(line for line in lines if line.startswith("$ ")).removeprefix("$ ")
    while text.endswith("\\"):
        text += "\n" + next(lines)
    return text


FIRST, SECOND = command("In the first shell:"), command("In the second shell:")
CURL = command("In the third shell:")


class Shells:
    """What a reader has: shells in which `hmacproxy` is found, and two ports."""

    def __init__(self, folder: Path) -> None:
        self.ports = {"8080": str(free_port()), "8081": str(free_port())}
        self._folder = folder
        program = folder / "hmacproxy"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hmac_gateway hmacproxy "$@"\n')
        program.chmod(0o755)
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "HMAC"))},
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def ported(self, text: str) -> str:
        """With the ports that are free here."""
        return re.sub("8080|8081", lambda found: self.ports[found[0]], text)

    @contextmanager
    def running(self, text: str, says: str) -> Iterator[None]:
        """A command in a shell of its own, once it has said so."""
        log = self._folder / f"log-{time.monotonic_ns()}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self.ported(text)}"],
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + 30
            while self.ported(says) not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(20)

    def curl(self) -> tuple[str, dict[str, str], str]:
        """Status line, headers and body of the third shell."""
        head, _, body = run_curl(self.ported(CURL)).replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.split("\n")
        return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


@pytest.fixture
def shells(tmp_path: Path) -> Shells:
    return Shells(tmp_path)


RESPONDING = "port 8081: responding Accepted/Unauthorized for auth queries"
PROXYING = "port 8080: proxying signed requests to: http://localhost:8081/"


def test_testing_out_locally(shells: Shells) -> None:
    with shells.running(FIRST, RESPONDING):
        with shells.running(SECOND, PROXYING):
            status, headers, body = shells.curl()
            assert (status, body) == ("HTTP/1.1 202 Accepted", "")
            assert headers["content-length"] == "0"
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
        for right, wrong in (
            ('-secret "foobar"', '-secret "foobaz"'),
            ('-sign-header "X-Signature"', '-sign-header "X-Other"'),
            ('-sign-header "X-Signature"', '-sign-header "X-Signature" -headers "Host,Accept"'),
        ):
            changed = SECOND.replace(right, wrong)
            assert changed != SECOND
            with shells.running(changed, PROXYING):
                status, headers, body = shells.curl()
                assert (status, body) == ("HTTP/1.1 401 Unauthorized", "unauthorized request\n"), wrong


def test_proxying_to_an_upstream_server(shells: Shells) -> None:
    """What signs, what verifies, and behind it a third that would refuse anything that was changed."""
    text = command("Proxying to an upstream server").replace("-upstream", "-upstream http://localhost:8081")
    says = "port 8080: proxying authenticated requests to: http://localhost:8081"
    with shells.running(FIRST, RESPONDING), shells.running(text, says):
        assert shells.curl()[0] == "HTTP/1.1 401 Unauthorized"
        with RawClient(int(shells.ports["8080"])) as client:
            assert client.ask("GET", VERIFIED, "h", [sign(f"GET\n{VERIFIED}\n")]).status == 202


def test_serving_files_directly(shells: Shells, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.joinpath("mbland").mkdir(parents=True)
    files.joinpath("mbland", "hmacproxy").write_text("a file\n")
    text = command("Serving files directly").replace("/path/to/my/files", str(files))
    with shells.running(text, f"port 8080: serving files from {files} for authenticated requests"):
        assert shells.curl()[0] == "HTTP/1.1 401 Unauthorized"
        with RawClient(int(shells.ports["8080"])) as client:
            answer = client.ask("GET", VERIFIED, "h", [sign(f"GET\n{VERIFIED}\n")])
            assert (answer.status, answer.body) == (200, b"a file\n")


def test_returning_a_status_over_ssl(shells: Shells, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    text = f"{command('Returning an Accepted/Unauthorized status')} -ssl-cert {cert} -ssl-key {key}"
    with shells.running(text, "port 8080: responding Accepted/Unauthorized for auth queries"):
        trusting = ssl.create_default_context(cafile=authority.ca_file)
        for signature, status in ((sign(f"GET\n{VERIFIED}\n"), 202), (sign("GET\n/\n"), 401)):
            with RawClient(int(shells.ports["8080"]), tls=trusting) as client:
                assert client.ask("GET", VERIFIED, "h", [signature]).status == status
