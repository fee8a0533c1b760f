"""The documentation is run: its commands work as printed, its links lead somewhere, its tables are complete.

A fenced block in `sh`, `python`, `js` or `java` is run as it stands, the blocks of one page in order, in one copy of
the checkout with keys and a database of its own; any other fence is only shown. Where a `text` block follows at once,
its lines must appear in the output, in this order; `…` stands for anything. Comments in the page say more:

    <!-- with demo -->         the page expects a running script/demo; pages that leave it as it was share one
    <!-- until "ready" -->     the next block goes on running; the page goes on when it has printed that
    <!-- exit 1 -->            the next block ends with this code
    <!-- elsewhere -->         the page begins in an empty folder outside the checkout, and makes an environment
    <!-- in examples/x -->     the same, in a copy of that example

Ports are replaced by free ones, and commands that listen are told them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import pytest
from django.core.management import BaseCommand, load_command_class

from hmac_gateway.conf import DEFAULTS
from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.identity import Identity
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import TABLE, row
from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HasConsumer
from hmac_gateway.logs import AccessLog
from hmac_gateway.management.commands.hmac_serve import Command as Serve
from hmac_gateway.plugins import OUTGOING, PLUGINS, RULES, hmac_auth, of_dialect, rate_limiting
from hmac_gateway.site_settings import CREDENTIAL_KEYS, PROTECT_KEYS
from proxy.hmacproxy.options import FLAGS

from .support.served import free_port
from .support.served import request as fetch

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^(?:<!-- (?P<say>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
RUNNERS = {
    "sh": ["bash"],
    "python": [sys.executable, "-"],
    "js": ["node", "-"],
    "java": ["java", "Block.java"],
}
PORTS = ("8000", "8001", "8080", "8081", "9080", "9180", "9181", "9280", "9443")
LISTENING = [
    (
        r"(script/demo|manage\.py hmac_demo)",
        "--bind 127.0.0.1:9080 --admin-bind 127.0.0.1:9180 --echo-bind 127.0.0.1:9181",
    ),
    (r"(manage\.py hmac_serve)", "--bind 127.0.0.1:9080 --admin-bind 127.0.0.1:9180"),
]
APISIX_LISTS = ("routes", "services", "upstreams", "consumers", "consumer_groups", "plugin_configs", "global_rules")
KONG_LISTS = ("routes", "services", "upstreams", "consumers", "plugins")
#: Compiled files come along: without them each page would compile everything anew.
IGNORED = (".git", ".venv", ".*_cache", ".hypothesis", "db.sqlite3*", ".env", "var", "results")


@dataclass
class Block:
    """A fenced block that is run. `expected` is the output that the page shows, "" for none."""

    language: str
    code: str
    say: str
    expected: str
    line: int


def read(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str) -> list[Block]:
    fences = list(FENCE.finditer(text))
    found = []
    for fence, after in zip_longest(fences, fences[1:]):
        if fence["language"] not in RUNNERS:
            continue
        shown = after is not None and after["language"] == "text" and not text[fence.end() : after.start()].strip()
        line = text.count("\n", 0, fence.start()) + 1
        expected = after["code"] if after is not None and shown else ""
        found.append(Block(fence["language"], fence["code"], fence["say"] or "", expected, line))
    return found


class Terminal:
    """A copy of the checkout in which the blocks of one page are run."""

    runners = RUNNERS

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self._state = folder / "state"
        self._log = folder / "log"
        self._ports = {port: str(free_port()) for port in PORTS}
        self._running: subprocess.Popen[bytes] | None = None
        shutil.copytree(ROOT, self.checkout, ignore=shutil.ignore_patterns(*IGNORED))
        # What script/_venv would make, without installing anything.
        tools = self.checkout / ".venv" / "bin"
        tools.mkdir(parents=True)
        (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tools / "python").chmod(0o755)
        shutil.copy(ROOT / "requirements.txt", self.checkout / ".venv" / "requirements.installed")
        taken = ("HMAC_GATEWAY_", "DJANGO_", "PYTEST", "SECRET_KEY", "DATABASE_URL", "COLUMNS")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(taken)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.interrupt()

    def forget(self) -> None:
        """A new shell: no variables, no functions."""
        self._state.unlink(missing_ok=True)

    def interrupt(self) -> None:
        """Ctrl-C for what was left running."""
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGTERM)
            try:
                self._running.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self._running.pid, signal.SIGKILL)
                self._running.wait()
            self._running = None

    def _own(self, text: str) -> str:
        for command, options in LISTENING:
            text = re.sub(command + r"(?![\w-])", rf"\1 {options}", text)
        return self._ports_own(text)

    def _ports_own(self, text: str) -> str:
        for port, own in self._ports.items():
            text = re.sub(rf"\b{port}\b", own, text)
        return text

    def configured(self) -> list[list[str]]:
        """The ids of everything that the demo's admin APIs list."""
        [key] = re.findall(r"^HMAC_GATEWAY_ADMIN_KEY=(.*)$", (self.checkout / ".env").read_text(), re.M)
        base, headers = f"http://127.0.0.1:{self._ports['9180']}", {"X-API-KEY": key}
        apisix = [fetch(f"{base}/apisix/admin/{name}", headers=headers).json()["list"] for name in APISIX_LISTS]
        kong = [fetch(f"{base}/kong/{name}", headers=headers).json()["data"] for name in KONG_LISTS]
        return [[item["key"] for item in found] for found in apisix] + [
            [item["id"] for item in found] for found in kong
        ]

    def run(self, block: Block) -> None:
        """Run a block and compare its output with what the page shows."""
        code = self._own(block.code)
        until = re.search(r'until "(.+)"', block.say)
        if until is not None:
            output = self._start(code, until[1])
        else:
            wanted = re.search(r"exit (\d)", block.say)
            output = self._finish(block.language, code, int(wanted[1]) if wanted else 0)
        self._compare(self._ports_own(block.expected), output)

    def _shell(self, code: str, keep: bool) -> str:
        # Variables and functions live on in the same terminal.
        before = f'[ ! -f "{self._state}" ] || . "{self._state}"\nset -aeu\n'
        return before + code + (f'\n{{ export -p; declare -f || :; }} > "{self._state}"\n' if keep else "")

    def _start(self, code: str, until: str) -> str:
        self.interrupt()
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(
                ["bash", "-c", self._shell(code, keep=False)],
                cwd=self.checkout,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            output = self._log.read_text()
            if re.search(rf"^.*{re.escape(until)}", output, re.M):
                return output
            assert self._running.poll() is None and time.monotonic() < deadline, output
            time.sleep(0.1)

    def _finish(self, language: str, code: str, wanted: int) -> str:
        if language == "sh":
            command = ["bash", "-c", self._shell(code, keep=True)]
            code = ""
        else:
            command = self.runners[language]
            if language == "java":
                (self.checkout / "Block.java").write_text(code)
        result = subprocess.run(
            command,
            cwd=self.checkout,
            env=self._environment | self._exported(),
            input=code,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == wanted, f"exit {result.returncode}\n{code}\n{result.stdout}\n{result.stderr}"
        return result.stdout + result.stderr

    def _exported(self) -> dict[str, str]:
        if not self._state.exists():
            return {}
        show = f'. "{self._state}"; exec "{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        result: dict[str, str] = json.loads(subprocess.check_output(["bash", "-c", show], env=self._environment))
        return result

    @staticmethod
    def _compare(expected: str, output: str) -> None:
        lines = iter(output.splitlines())
        for line in expected.splitlines():
            if line.strip() in ("", "…"):
                continue
            pattern = ".*".join(re.escape(part) for part in line.strip().split("…"))
            assert any(re.fullmatch(pattern, found.strip()) for found in lines), f"{line}\n--- not in:\n{output}"


class Elsewhere(Terminal):
    """A folder outside the checkout. The environment that a page makes there holds the wheel already."""

    def __init__(self, folder: Path, installed: Path, example: str) -> None:
        self.checkout = folder / "site"
        self._state, self._log = folder / "state", folder / "log"
        self._ports = {port: str(free_port()) for port in PORTS}
        self._running = None
        self.runners = RUNNERS | {"python": [str(installed), "-"]}
        if example:
            shutil.copytree(ROOT / example, self.checkout, ignore=shutil.ignore_patterns(*IGNORED, "encryption.key"))
        else:
            self.checkout.mkdir()
        tools = folder / "tools"
        tools.mkdir()
        environment = installed.parent.parent
        (tools / "python3").write_text(
            f'#!/bin/sh\n[ "$*" = "-m venv .venv" ] && exec ln -s "{environment}" .venv\nexit 9\n'
        )
        (environment / "bin" / "pip").write_text('#!/bin/sh\n[ "$1" = install ]\n')
        for tool in (tools / "python3", environment / "bin" / "pip"):
            tool.chmod(0o755)
        taken = ("HMAC_GATEWAY_", "DJANGO_", "PYTEST", "PYTHON", "SECRET_KEY", "DATABASE_URL", "COLUMNS", "WEB_CONC")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(taken)}
        self._environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONWARNINGS": "error"}


class Demo:
    """A running demo for pages that follow each other: starting one takes many seconds of all cores."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._terminal: Terminal | None = None
        self._fresh: list[list[str]] = []

    @contextmanager
    def terminal(self) -> Iterator[Terminal]:
        """A terminal beside the demo. The next page gets another demo unless this one leaves it as it was."""
        if self._terminal is None:
            self._terminal = Terminal(self._folders.mktemp("demo"))
            self._terminal.run(Block("sh", "script/demo", 'until "ready"', "", 0))
            self._fresh = self._terminal.configured()
        self._terminal.forget()
        left = False
        try:
            yield self._terminal
            left = self._terminal.configured() == self._fresh
        finally:
            if not left:
                self.end()

    def end(self) -> None:
        """Stop it."""
        if self._terminal is not None:
            self._terminal.interrupt()
        self._terminal = None


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    found = Demo(tmp_path_factory)
    yield found
    found.end()


def opened(text: str, folder: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Terminal]:
    """Where the blocks of a page are run."""
    if "<!-- with demo -->" in text and "<!-- until" not in text:
        shared: Demo = request.getfixturevalue("demo")
        return shared.terminal()
    place = re.search(r"<!-- (?:elsewhere|in (examples/\w+)) -->", text)
    if place is None:
        return Terminal(folder)
    return Elsewhere(folder, request.getfixturevalue("installed"), place[1] or "")


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(read(name))])
def test_blocks_run_as_printed(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = read(name)
    with opened(text, tmp_path, request) as terminal:
        if "<!-- with demo -->" in text and "<!-- until" in text:
            terminal.run(Block("sh", "script/demo", 'until "ready"', "", 0))
        for block in blocks(text):
            if shutil.which(RUNNERS[block.language][0]) is None:
                continue
            try:
                terminal.run(block)
            except AssertionError as error:
                raise AssertionError(f"{name}, line {block.line}: {error}") from None


def test_every_page_starts_with_a_block_that_runs() -> None:
    for name in NAMES:
        if name.startswith("docs/"):
            first = next(FENCE.finditer(read(name)), None)
            assert first is not None and first["language"] in RUNNERS, name


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)}


def links(name: str) -> Iterator[str]:
    text = FENCE.sub("", read(name))
    for found in re.finditer(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", found[1]):
            yield found[1]


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name: str) -> None:
    for link in links(name):
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_every_page_is_linked() -> None:
    linked = {(ROOT / name).parent / link.partition("#")[0] for name in NAMES for link in links(name)}
    reached = {path.resolve() for path in linked}
    for page in (ROOT / "docs").glob("*.md"):
        assert page.resolve() in reached, page.name
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.resolve() in reached, image.name
        assert image.stat().st_size < 150_000, image.name


def test_pages_are_about_the_product_only() -> None:
    for name in NAMES:
        for path in re.findall(r"/(?:work|root|home|Users)/[\w.]+", read(name)):
            assert path in ("/home/gateway",), (name, path)


# --- tables that must be complete ---


def table(name: str, *, column: int = 0) -> dict[str, list[str]]:
    """Rows of a page's tables whose first cell is code, by that code."""
    return rows_of(read(name), column)


def rows_of(text: str, column: int = 0) -> dict[str, list[str]]:
    """The same of a text."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and (code := re.fullmatch(r"`([^`]+)`", cells[column])):
            found[code[1]] = cells
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    rows = table("docs/gateway.md")
    for key, value in DEFAULTS.items():
        assert key in rows, key
        shown = rows[key][1].strip("`").replace(" ", "").replace("_", "")
        assert shown == str(value).replace(" ", "").replace("_", ""), (key, shown)


def test_every_environment_variable_is_documented() -> None:
    rows = table("docs/gateway.md")
    read_by_settings = re.findall(r'env(?:\.\w+)?\(\s*"(\w+)"', read("hmac_gateway/settings.py"))
    assert len(read_by_settings) > 10
    for name in (*read_by_settings, "HMAC_GATEWAY_NO_DOTENV"):
        assert name in rows, name


def test_every_system_check_is_documented_and_tested() -> None:
    rows = table("docs/checks.md")
    code = "".join(path.read_text() for path in (ROOT / "hmac_gateway" / "checks").glob("*.py"))
    ids = set(re.findall(r'"(hmac_gateway\.[EW]\d+)"', code))
    assert ids
    assert ids == {name for name in rows if name.startswith("hmac_gateway.")}
    assert all(len(cells) == 3 and all(cells) for name, cells in rows.items() if name in ids)
    tests = "".join(path.read_text() for path in [ROOT / "tests/test_checks.py", *(ROOT / "tests/checks").glob("*.py")])
    untested = {name for name in ids if f'"{name}"' not in tests and f'"{name.partition(".")[2]}"' not in tests}
    assert not untested


def test_every_option_of_hmac_serve_is_documented() -> None:
    rows = table("docs/gateway.md")
    parser = Serve().create_parser("manage.py", "hmac_serve")
    django = {action.dest for action in Serve.__base__().create_parser("manage.py", "x")._actions}
    for action in parser._actions:
        if action.dest not in django:
            assert action.option_strings[0] in rows, action.option_strings


def test_every_flag_of_hmacproxy_is_documented_with_its_default() -> None:
    rows = table("docs/hmacproxy.md")
    for name, flag in FLAGS.items():
        shown = rows[f"-{name}"][1].strip("`")
        if isinstance(flag.default, bool):
            assert shown == ("on" if flag.default else "off"), name
        elif flag.default:
            assert shown == str(flag.default), name
        else:
            assert shown in ("none", "required"), name


@pytest.mark.parametrize("name", ["hmac_import", "hmac_export"])
def test_every_option_of_import_and_export_is_documented(name: str) -> None:
    rows = table("docs/import-export.md")
    command = load_command_class("hmac_gateway", name)
    django = {action.dest for action in BaseCommand().create_parser("manage.py", "x")._actions}
    for action in command.create_parser("manage.py", name)._actions:
        if action.dest not in django:
            assert (action.option_strings or ["FILE"])[0] in rows, action.dest


def test_every_reason_is_explained_with_its_status() -> None:
    rows = table("docs/debugging.md")
    for reason in Reason:
        assert str(reason) in rows, reason
        owners = {name for dialect, name, its in TABLE if its is reason and dialect == "apisix"}
        plugin = owners.pop() if owners and owners <= {*RULES} else hmac_auth.name
        plugin = "" if reason is Reason.MALFORMED else plugin
        dialect = "kong" if {whose for whose, _, its in TABLE if its is reason} == {"kong"} else "apisix"
        assert rows[str(reason)][1] == str(row(Rejected(reason, plugin=plugin, dialect=dialect)).status), reason


KNOWN = {name: plugin for name, plugin in (PLUGINS | OUTGOING).items() if "apisix" in plugin.config_schema}


@pytest.mark.parametrize("plugin", KNOWN.values(), ids=KNOWN)
def test_every_field_of_a_plugin_is_documented_with_its_default(plugin: Any) -> None:
    rows = table(f"docs/{plugin.name}.md")
    for name, schema in plugin.config_schema["apisix"]["properties"].items():
        if name == "_meta":
            continue
        assert name in rows, name
        default = schema.get("default")
        shown = json.dumps(default) if default is not None else "none"
        assert rows[name][1].strip("`") == shown, name
    for name in (getattr(plugin, "credential_schema", None) or {"properties": {}})["properties"]:
        assert name in rows, name


WORDS = [(name, reason) for dialect, name, reason in TABLE if dialect == "apisix" and name in PLUGINS]


@pytest.mark.parametrize(("plugin", "reason"), WORDS)
def test_every_answer_of_a_plugin_is_documented(plugin: str, reason: Reason | None) -> None:
    status, text, key = TABLE["apisix", plugin, reason]
    shown = (
        f'| {status} | `{{"{key}":"{text}"}}` |'.replace("{size}", "N")
        .replace("{limit}", "M")
        .replace("{word}", "Signature")
    )
    assert shown in read(f"docs/{plugin}.md"), shown


KONG_PAGES = {"acl": "docs/acl.md", "rate-limiting": "docs/rate-limiting.md", "sign-request": ""}
#: Described with APISIX's, or as older names of others.
ELSEWHERE = {*hmac_auth.HMACPROXY, *(name for name in rate_limiting.KONG_SCHEMA["properties"] if "redis_" in name)}


def section(page: str, heading: str) -> str:
    """A page's text below a heading, down to the next of its kind."""
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", read(page), re.M | re.S)
    assert found is not None, heading
    return found[1]


def kong_text(plugin: str) -> str:
    page = KONG_PAGES.get(plugin)
    return section("docs/kong-plugins.md", plugin) if page is None else read(page)


@pytest.mark.parametrize("plugin", [plugin for plugin in of_dialect("kong") if plugin != "sign-request"])
def test_every_field_of_kongs_plugins_is_documented_with_its_default(plugin: str) -> None:
    rows = rows_of(kong_text(plugin))
    properties = of_dialect("kong")[plugin].config_schema["kong"]["properties"]
    records = {name: kind["properties"] for name, kind in properties.items() if "properties" in kind}
    for fields in (properties, *records.values()):
        for name, schema in fields.items():
            if name in ELSEWHERE:
                continue
            default = schema.get("default")
            shown = "none" if default is None else json.dumps(default)
            assert name in rows and rows[name][1].strip("`") == shown, name


@pytest.mark.parametrize(
    ("dialect", "plugin", "reason"), [key for key in TABLE if key[0].startswith("kong") and key[1]], ids=str
)
def test_every_answer_of_kongs_plugins_is_documented(dialect: str, plugin: str, reason: Reason | None) -> None:
    found = TABLE[dialect, plugin, reason]
    text = kong_text(plugin) if dialect == "kong" else section("docs/kong-plugins.md", "Kong 0.x")
    shown = found.text if found.key == "message" else json.dumps({found.key: found.text}, separators=(",", ":"))
    assert f"| {found.status} | `{shown}` |" in text


def test_embedding_pages_know_every_key_and_field() -> None:
    django, drf = table("docs/embed-django.md"), table("docs/embed-drf.md")
    for key in (*PROTECT_KEYS, *CREDENTIAL_KEYS, *Identity._fields):
        assert key in django, key
    for key in inspect.signature(hmac_required).parameters:
        assert key == "view" or key in django, key
    for key in PROTECT_KEYS[1:]:
        assert key in drf, key
    narrowed = {name for name, made in vars(HasConsumer).items() if isinstance(made, classmethod)}
    assert narrowed == {key.partition(".")[2].partition("(")[0] for key in drf if key.startswith("HasConsumer.")}


def test_access_line_is_documented_as_it_is() -> None:
    log = AccessLog()
    at: Any = {"at": 0, "sent": 0, "seconds": 0, "upstream_seconds": 0, "status": 200}
    words = ("request_id", "remote", "method", "path", "route", "consumer", "upstream", "reason")
    log.write(**at, **dict.fromkeys(words, ""))
    written = json.loads(log._lines[0])
    shown = next(fence for fence in FENCE.finditer(read("docs/gateway.md")) if fence["language"] == "json")
    assert list(json.loads(shown["code"])) == list(written)
    for key in written:
        assert key in table("docs/gateway.md"), key
