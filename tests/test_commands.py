"""hmac_sign, hmac_explain and the console's explanation: what a person sees at 5 p.m."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import time
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError

from hmac_gateway.telemetry import Telemetry
from tests.support.served import ROOT, digest_of, signed

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def configuration() -> None:
    upstream = apps.get_model("hmac_proxy.Upstream").objects.create(id="u")
    route = apps.get_model("hmac_proxy.Route").objects.create(
        id="r", upstream=upstream, paths=["/anything/*"], methods=["GET", "POST"]
    )
    apps.get_model("hmac_proxy.Plugin").objects.create(
        name="hmac-auth", route=route, config={"validate_request_body": True}
    )
    consumer = apps.get_model("hmac_consumers.Consumer").objects.create(username="partner")
    credential = apps.get_model("hmac_consumers.Credential")(
        consumer=consumer, public_id="cred", plugin="hmac-auth", identifier="client-1"
    )
    credential.set_secret("my-hmac-secret")
    credential.save()


def run(name: str, *arguments: str, **options: Any) -> tuple[str, int]:
    out = io.StringIO()
    try:
        call_command(name, *arguments, stdout=out, **options)
    except SystemExit as end:
        return out.getvalue(), int(end.code or 0)
    return out.getvalue(), 0


def raw(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def explain(tmp_path: Path, data: bytes, *arguments: str) -> tuple[str, int]:
    file = tmp_path / "raw"
    file.write_bytes(data)
    return run("hmac_explain", "--raw", str(file), *arguments)


# --- hmac_sign ---


def test_sign_prints_what_an_independent_signer_computes() -> None:
    out, _ = run("hmac_sign", "get", "http://gateway:9080/anything/x?a=%2f&b", "--json")
    headers = json.loads(out)
    at = parsedate_to_datetime(headers["Date"]).timestamp()
    assert headers["Authorization"] == signed("GET", "/anything/x?a=%2f&b", at=at)["authorization"]
    assert abs(at - time.time()) < 60


def test_sign_covers_the_digest_of_a_body() -> None:
    out, _ = run("hmac_sign", "POST", "http://g/anything/x", "--data", '{"a": 1}', "--json")
    headers = json.loads(out)
    assert headers["Digest"] == digest_of(b'{"a": 1}')
    at = parsedate_to_datetime(headers["Date"]).timestamp()
    listed = ("@request-target", "date", "digest")
    independent = signed("POST", "/anything/x", listed=listed, headers={"digest": headers["Digest"]}, at=at)
    assert headers["Authorization"] == independent["authorization"]


def test_sign_for_kong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "!Qwaszxerdfcv")
    date = ["--date", "Mon, 02 Dec 2024 16:23:54 GMT", "-H", "Dummy: Kong"]
    options = ["--scheme", "kong", "--key-id", "johnsmith", "--secret-env", "KEPT", "--json", *date]
    out, _ = run("hmac_sign", "GET", "http://h/kong/healthy", "--signed", "date dummy @request-target", *options)
    assert json.loads(out)["Authorization"] == (
        'hmac username="johnsmith", algorithm="hmac-sha256", headers="date dummy @request-target", '
        'signature="lmCENhBAr+WhCzoL21aqRU44Y0C5HjS5sAU8zkmAoPE="'
    )


def test_sign_as_hmacproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "foobar")
    options = ["--scheme", "hmacproxy", "--secret-env", "KEPT", "--sign-header", "GAP-Signature", "--json"]
    out, _ = run(
        "hmac_sign", "POST", "http://g/foo/bar", "--data", "hello", "--signed", "X-A X-B", "-H", "X-A: 1", *options
    )
    # printf 'POST\n1\n\n/foo/bar\nhello' | openssl dgst -sha1 -hmac foobar -binary | base64
    assert json.loads(out) == {"X-A": "1", "GAP-Signature": "sha1 oCrQFS33qgizTRk/yr/whl5ka70="}


def test_sign_prints_a_curl_command_that_a_shell_reads_back() -> None:
    out, _ = run("hmac_sign", "POST", "http://g/anything/x", "--data", "it's", "-H", "X-A: b c")
    words = shlex.split(out.replace("\\\n", " "))
    assert words[:5] == ["curl", "-i", "-X", "POST", "http://g/anything/x"]
    assert words[words.index("--data-binary") + 1] == "it's"
    assert "X-A: b c" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["GET", "/x"], "a whole URL"),
        (
            ["GET", "http://g/x", "--key-id", "nobody"],
            "'nobody' was given; no hmac-auth credential has it.*--secret-env",
        ),
        (["GET", "http://g/x", "-H", "nonsense"], "'Name: value'"),
        (["GET", "http://g/x", "--signed", "x-absent"], "headers of the request"),
        (["GET", "http://g/x", "--date", "yesterday"], "Sun, 06 Nov 1994"),
        (["GET", "http://g/x", "--key-id", "k", "--secret-file", "/nonexistent"], "cannot be read"),
        (["GET", "http://g/x", "--key-id", "k", "--secret-env", "NOT_SET_ANYWHERE"], "is not set"),
    ],
)
def test_sign_says_what_is_wrong(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        run("hmac_sign", *arguments)


# --- hmac_explain ---


def test_right_request_is_accepted(tmp_path: Path) -> None:
    headers = signed(
        "GET", "/anything/x", listed=("@request-target", "date", "digest"), headers={"digest": digest_of(b"")}
    )
    out, code = explain(tmp_path, raw("GET", "/anything/x", headers))
    assert code == 0, out
    assert out.startswith("accepted   route r   plugin hmac-auth")


def test_forgotten_newline_is_named(tmp_path: Path) -> None:
    # The client's own string, without the newline at its end, signed by an independent implementation.
    import base64
    import hashlib
    import hmac

    date = formatdate(usegmt=True)
    string = f"client-1\nGET /anything/x\ndate: {date}"
    mac = base64.b64encode(hmac.new(b"my-hmac-secret", string.encode(), hashlib.sha256).digest()).decode()
    authorization = (
        f'Signature keyId="client-1",algorithm="hmac-sha256",headers="@request-target date",signature="{mac}"'
    )
    out, code = explain(tmp_path, raw("GET", "/anything/x", {"Date": date, "Authorization": authorization}))
    assert code == 1
    assert "refused: signature_mismatch" in out
    assert "the final newline is missing" in out
    assert "GET /anything/x\\n" in out
    assert "my-hmac-secret" not in out


def test_difference_to_the_clients_string_is_shown(tmp_path: Path) -> None:
    headers = signed("GET", "/anything/y")
    theirs = tmp_path / "string"
    theirs.write_bytes(f"client-1\nGET /anything/y\ndate: {headers['date']}\n".encode())
    out, code = explain(tmp_path, raw("GET", "/anything/x", headers), "--client-string", str(theirs))
    assert code == 1
    assert "line 2, column 15" in out


def test_wrong_body_is_named(tmp_path: Path) -> None:
    listed = ("@request-target", "date", "digest")
    headers = signed("POST", "/anything/x", listed=listed, headers={"digest": digest_of(b"one")})
    out, code = explain(tmp_path, raw("POST", "/anything/x", headers | {"Content-Length": "3"}, b"two"))
    assert code == 1
    assert "refused: digest_mismatch" in out


def test_route_that_nearly_fits_is_named(tmp_path: Path) -> None:
    out, code = explain(tmp_path, raw("DELETE", "/anything/x", {}))
    assert code == 1
    assert "refused: no_route" in out
    assert "route r has this path, but takes GET, POST only, not DELETE" in out


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"paths": ["/k"], "methods": ["PUT"]}, "takes PUT only, not GET"),
        ({"paths": [r"~/k/\d+"], "headers": {"x": ["1"]}}, "its headers or snis do not hold"),
        ({"hosts": ["*.k.test"]}, "is for *.k.test, not x"),
        ({"paths": ["/k"], "remote_addrs": ["192.0.2.0/24"]}, "takes requests from 192.0.2.0/24 only"),
    ],
)
def test_route_of_kong_that_nearly_fits_is_named(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    apps.get_model("hmac_proxy.Route").objects.create(id="k", dialect="kong", **fields)
    apps.get_model("hmac_proxy.Route").objects.create(id="other", dialect="kong", paths=["/no", r"~/k/\d+/x"])
    out, code = explain(tmp_path, raw("GET", "/k/12", {}))
    assert (code, f"route k has this path, but {why}" in out, "route other" in out) == (1, True, False)


def test_curl_output_is_understood_and_json_is_json(tmp_path: Path) -> None:
    lines = "".join(f"> {name}: {value}\n" for name, value in signed("GET", "/anything/x").items())
    text = f"* Connected\n> GET /anything/x HTTP/1.1\n> Host: x\n{lines}> \n< HTTP/1.1 401 Unauthorized\n"
    out, code = explain(tmp_path, text.encode(), "--json")
    assert code == 1
    assert json.loads(out)["reason"] == "digest_missing"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"GET\n", b"GET /x HTTP/1.1\nbroken line\n\n", b"\xff\xfe"])
def test_what_is_no_request_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CommandError, match="raw"):
        explain(tmp_path, data)


# --- refused requests that were kept ---


class Exchange:
    """What the gateway lane says of a request."""

    def __init__(self, request_id: str, headers: dict[str, str]) -> None:
        from hmac_gateway.core.identity import NOBODY
        from hmac_gateway.core.message import Message

        self.message = Message("GET", "/anything/x", [("Host", "x"), ("Cookie", "session=1"), *headers.items()])
        self.request_id, self.path, self.status, self.reason = request_id, "/anything/x", 401, "signature_mismatch"
        self.route_id, self.identity = "r", NOBODY


@pytest.fixture
def kept() -> str:
    from hmac_gateway.core.errors import Rejected
    from hmac_gateway.core.reasons import Reason
    from hmac_gateway.runtime import Runtime

    telemetry = Telemetry(Runtime())
    rejected = Rejected(Reason.SIGNATURE_MISMATCH, plugin="hmac-auth")
    telemetry.rejected(Exchange("abc123", signed("GET", "/anything/y")), rejected)
    telemetry.flush()
    return "abc123"


def test_kept_request_is_explained_by_its_id(kept: str) -> None:
    out, code = run("hmac_explain", "--request-id", kept)
    assert code == 1
    assert "refused: " in out
    assert "GET /anything/x\\n" in out


def test_kept_head_is_sealed_and_holds_no_cookie(kept: str) -> None:
    from hmac_gateway import crypto

    row = apps.get_model("hmac_gateway.Rejection").objects.get(request_id=kept)
    assert "client-1" not in row.sealed_request
    assert "session=1" not in crypto.open_sealed(row.sealed_request)


def test_kept_request_is_found_by_the_key_id_a_partner_names(kept: str, admin_client: Any) -> None:
    page = admin_client.get("/admin/hmac_gateway/rejection/?q=client-1").content.decode()
    assert "1 rejected request" in page and "/anything/x" in page
    assert "0 rejected requests" in admin_client.get("/admin/hmac_gateway/rejection/?q=client-2").content.decode()


def test_empty_request_id_is_said_to_be_unknown() -> None:
    with pytest.raises(CommandError, match="refused within the last day"):
        run("hmac_explain", "--request-id", "")


def test_use_of_a_credential_is_noted_without_a_new_version() -> None:
    from hmac_gateway.core.identity import Identity
    from hmac_gateway.models import ConfigVersion
    from hmac_gateway.runtime import Runtime

    runtime = Runtime()
    assert runtime.refresh() and runtime.snapshot is not None
    exchange = Exchange("used", {})
    exchange.identity = Identity(credential=runtime.snapshot.lookups["hmac-auth"]("client-1"))
    before = ConfigVersion.load().version
    telemetry = Telemetry(runtime)
    telemetry.finished(exchange)
    telemetry.flush()
    assert apps.get_model("hmac_consumers.Credential").objects.get().last_used_at is not None
    assert ConfigVersion.load().version == before


def test_unknown_request_id_is_said_to_be_unknown() -> None:
    with pytest.raises(CommandError, match="refused within the last day"):
        run("hmac_explain", "--request-id", "nobody")


def test_console_shows_the_explanation(kept: str, admin_client: Any) -> None:
    row = apps.get_model("hmac_gateway.Rejection").objects.get(request_id=kept)
    page = admin_client.get(f"/admin/hmac_gateway/rejection/{row.pk}/change/").content.decode()
    assert "the server&#x27;s signing string" in page
    assert "my-hmac-secret" not in page


# --- the other way in ---


def test_module_entry_lists_its_commands() -> None:
    result = subprocess.run([sys.executable, "-m", "hmac_gateway"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert {"demo", "serve", "sign", "explain"} <= set(result.stderr.replace(",", " ").split())


# --- encryption keys ---


OLD, NEW = "dGVzdC1rZXktdGVzdC1rZXktdGVzdC1rZXktdGVzdDE=", "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleTE="


def test_old_encryption_key_can_go_after_rotation(kept: str, settings: Any) -> None:
    from hmac_gateway.runtime import Runtime

    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "ENCRYPTION_KEYS": [NEW, OLD]}
    out, code = run("hmac_rotate_keys", "--json")
    assert code == 0
    assert json.loads(out)["hmac_consumers.Credential"] == 1
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "ENCRYPTION_KEYS": [NEW]}
    runtime = Runtime()
    assert runtime.refresh(), runtime.problems
    assert runtime.snapshot is not None
    credential = runtime.snapshot.lookups["hmac-auth"]("client-1")
    assert credential is not None
    assert [secret.reveal() for secret in credential.open_secrets(0.0)] == [b"my-hmac-secret"]
    out, _ = run("hmac_explain", "--request-id", kept)
    assert "GET /anything/x" in out


def test_rotation_without_the_sealing_key_changes_nothing(settings: Any) -> None:
    model = apps.get_model("hmac_consumers.Credential")
    before = model.objects.get().sealed_secret
    settings.HMAC_GATEWAY = {**settings.HMAC_GATEWAY, "ENCRYPTION_KEYS": [NEW]}
    with pytest.raises(CommandError, match="put the key that sealed it behind the newest"):
        run("hmac_rotate_keys")
    assert model.objects.get().sealed_secret == before
