"""Kong 0.x's page of the HMAC plugin, run as a reader would: its curl commands, then requests signed with SHA-1."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.support.echo import EchoUpstream
from tests.support.served import Answer, Served, free_port
from tests.walkthroughs.guide import curls, run_curl, text_of

TEXT = text_of("seed_003.txt")
#: The page's commands, without the shell's prompt.
COMMANDS = curls(re.sub(r"^\$ ", "", TEXT, flags=re.M))
SECRET = "secret456"


class Lab:
    """A gateway whose Kong admin API is where the page says: http://kong:8001, without a key."""

    def __init__(self, served: Served, port: int) -> None:
        self.served, self._port = served, port

    def curl(self, command: str) -> dict[str, Any]:
        """What a command of the page answers; `kong` leads to the listener."""
        printed = run_curl(command.replace("curl ", f"curl -sS --connect-to kong:8001:127.0.0.1:{self._port} ", 1))
        return dict(json.loads(printed))

    def get(self, headers: dict[str, str], target: str = "/mockbin/status") -> Answer:
        return self.served.get(target, headers)

    def until(self, status: int, target: str) -> None:
        """Wait until a change is in force: one second is promised."""
        deadline = time.monotonic() + 20
        while self.served.get(target).status != status:
            assert time.monotonic() < deadline, self.served.log.read_text()
            time.sleep(0.02)


def credentials(secret: str = SECRET, date: str = "", username: str = "user123", algorithm: str = "hmac-sha1") -> str:
    """The header's value, made by hand: HMAC-SHA1 over one line, whatever the algorithm is called."""
    mac = base64.b64encode(hmac.digest(secret.encode(), f"date: {date}".encode(), "sha1")).decode()
    return f'hmac username="{username}", algorithm="{algorithm}", headers="date", signature="{mac}"'


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    port = free_port()
    arguments = ["--kong-admin-bind", f"127.0.0.1:{port}", "--kong-admin-open"]
    with EchoUpstream() as echo, Served(arguments=arguments, environment={"ALLOWED_HOSTS": "kong"}, ports=[port]) as it:
        lab = Lab(it, port)
        for api in ("mockbin", "hidden"):
            made = lab.curl(
                f"curl -X POST http://kong:8001/apis/ --data name={api} --data request_path=/{api} "
                f"--data strip_request_path=true --data upstream_url=http://{echo.node}/"
            )
            assert made["name"] == api, made
        yield lab


@pytest.fixture(scope="module")
def answers(lab: Lab) -> list[dict[str, Any]]:
    """The page's commands with its placeholders filled in, and what they answered."""
    filled = [command.replace("{api}", "mockbin").replace("{consumer}", "user123") for command in COMMANDS]
    found = [lab.curl(command) for command in filled]
    lab.curl("curl http://kong:8001/apis/hidden/plugins --data name=hmac-auth --data config.hide_credentials=true")
    lab.until(401, "/mockbin/status")
    lab.until(401, "/hidden/status")
    return found


def test_the_page_has_the_commands_we_run() -> None:
    assert [re.findall(r"http://kong:8001\S+", command)[0] for command in COMMANDS] == [
        "http://kong:8001/apis/{api}/plugins",
        "http://kong:8001/consumers/",
        "http://kong:8001/consumers/{consumer}/hmac-auth",
    ]


def test_every_command_is_accepted(lab: Lab, answers: list[dict[str, Any]]) -> None:
    plugin, consumer, credential = answers
    api = lab.curl("curl http://kong:8001/apis/mockbin")
    assert (plugin["name"], plugin["api_id"], plugin["enabled"]) == ("hmac-auth", api["id"], True)
    # The page's defaults.
    assert (plugin["config"]["hide_credentials"], plugin["config"]["clock_skew"]) == (False, 300)
    assert (consumer["username"], consumer["custom_id"]) == ("user123", "SOME_CUSTOM_ID")
    assert (credential["username"], credential["secret"]) == ("user123", "********")
    assert credential["consumer"] == {"id": consumer["id"]}


@pytest.mark.parametrize(
    "places", [["Proxy-Authorization"], ["Authorization"], ["Proxy-Authorization", "Authorization"]]
)
def test_sha1_in_either_header_or_both(lab: Lab, answers: list[dict[str, Any]], places: list[str]) -> None:
    date = formatdate(time.time(), usegmt=True)
    # Of two, the first that is looked at counts.
    headers = {"Date": date, **dict.fromkeys(places, credentials(date=date))}
    if len(places) == 2:
        headers["Authorization"] = "Bearer of-another-kind"
    answer = lab.get(headers)
    assert answer.status == 200, answer.body
    seen = answer.json()["headers"]
    consumer = answers[1]
    assert (seen["X-Consumer-Id"], seen["X-Consumer-Custom-Id"], seen["X-Consumer-Username"]) == (
        consumer["id"],
        "SOME_CUSTOM_ID",
        "user123",
    )
    # 0.x told no more than these three.
    assert not {"X-Credential-Identifier", "X-Anonymous-Consumer"} & seen.keys()
    if "Authorization" in headers:
        assert seen["Authorization"] == headers["Authorization"]


def test_credentials_are_hidden_where_the_plugin_says_so(lab: Lab, answers: list[dict[str, Any]]) -> None:
    date = formatdate(time.time(), usegmt=True)
    value = credentials(date=date)
    for headers in (
        {"Authorization": value},
        {"Proxy-Authorization": value},
        {"Proxy-Authorization": "Basic eDp5", "Authorization": value},
    ):
        answer = lab.get({"Date": date, **headers}, "/hidden/status")
        assert answer.status == 200, answer.body
        assert not {"Authorization", "Proxy-Authorization"} & answer.json()["headers"].keys()


def test_the_consumer_headers_of_a_client_are_not_believed(lab: Lab, answers: list[dict[str, Any]]) -> None:
    date = formatdate(time.time(), usegmt=True)
    forged = {"X-Consumer-ID": "1", "X-Consumer-Username": "root", "X-Consumer-Custom-ID": "1"}
    answer = lab.get({"Date": date, "Authorization": credentials(date=date), **forged})
    assert answer.json()["headers"]["X-Consumer-Username"] == "user123"


REFUSED: list[tuple[str, dict[str, str], int, str]] = [
    ("nothing sent", {}, 401, "Unauthorized"),
    ("wrong secret", {"secret": "other"}, 403, "HMAC signature does not match"),
    ("unknown user", {"username": "nobody"}, 403, "HMAC signature cannot be verified"),
    (
        "too old",
        {"age": "301"},
        403,
        "HMAC signature cannot be verified, a valid date field is required for HMAC Authentication",
    ),
]


@pytest.mark.parametrize(("case", "change", "status", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refusals_have_the_old_statuses_and_words(
    lab: Lab, answers: list[dict[str, Any]], case: str, change: dict[str, str], status: int, message: str
) -> None:
    date = formatdate(time.time() - int(change.get("age", "0")), usegmt=True)
    said = {name: text for name, text in change.items() if name != "age"}
    headers = {} if status == 401 else {"Date": date, "Authorization": credentials(date=date, **said)}
    answer = lab.get(headers)
    assert (answer.status, answer.json()["message"]) == (status, message)
    assert "www-authenticate" not in answer.headers


def test_the_algorithm_is_sha1_whatever_it_is_called(lab: Lab, answers: list[dict[str, Any]]) -> None:
    date = formatdate(time.time(), usegmt=True)
    assert lab.get({"Date": date, "Authorization": credentials(date=date, algorithm="hmac-sha256")}).status == 200


def test_a_plugin_that_is_not_available_is_refused() -> None:
    port = free_port()
    with Served(
        arguments=["--kong-admin-bind", f"127.0.0.1:{port}", "--kong-admin-open"],
        environment={"ALLOWED_HOSTS": "kong", "HMAC_GATEWAY_PLUGINS_AVAILABLE": "key-auth,basic-auth"},
        ports=[port],
    ) as served:
        lab = Lab(served, port)
        lab.curl(
            "curl http://kong:8001/apis/ -d name=mockbin -d request_path=/mockbin -d upstream_url=http://127.0.0.1:1"
        )
        refused = lab.curl(COMMANDS[0].replace("{api}", "mockbin"))
        assert refused == {"config": 'Plugin "hmac-auth" not found'}
        assert lab.curl("curl http://kong:8001/plugins/enabled") == {"enabled_plugins": ["basic-auth", "key-auth"]}
