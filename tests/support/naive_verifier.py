"""A second, naive verifier of the APISIX signature format, to compare the engine with.

Written from the format's description only: it imports nothing of the product, shares no code with it and is as
plain as possible. Text is bytes as latin-1 text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_tz
from urllib.parse import unquote_to_bytes

HASHES = {"hmac-sha1": "sha1", "hmac-sha256": "sha256", "hmac-sha384": "sha384", "hmac-sha512": "sha512"}
ONCE = ("authorization", "proxy-authorization", "date", "x-date", "digest", "host", "content-length")


def accepts(
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    keys: dict[str, list[bytes]],
    now: float,
    *,
    allowed: Sequence[str] = ("hmac-sha1", "hmac-sha256", "hmac-sha512"),
    skew: int = 300,
    required: Sequence[str] = ("date",),
    require_signed_date: bool = True,
    body: bytes | None = None,
    require_signed_digest: bool = True,
) -> bool:
    """Whether a request is signed right. `keys`: live secrets by key id; `body`: None where it is not checked."""
    received: dict[str, list[str]] = {}
    for name, value in headers:
        received.setdefault(name.lower(), []).append(value.strip(" \t"))
    if any(len(received.get(name, [])) > 1 for name in ONCE):
        return False
    if "authorization" not in received:
        return False
    fields = parameters(received["authorization"][0])
    if fields is None or not fields.get("keyId") or not fields.get("signature"):
        return False
    algorithm = fields.get("algorithm", "")
    if algorithm not in allowed or fields["keyId"] not in keys:
        return False
    listed = [item for item in fields.get("headers", "").split(" ") if item]

    lines = []
    covered = set()
    for item in listed:
        if item == "@request-target":
            lines.append("@request-target")
            covered.add("@request-target")
            continue
        for name in (item.lower(), item.lower().replace("_", "-")):
            if name in received:
                lines.append(item + ": " + received[name][0])
                if len(received[name]) == 1:
                    covered.add(name)
                break

    times = []
    if "date" in received and ("date" in covered or not require_signed_date):
        times.append(seconds(received["date"][0]))
    if "x-date" in received and "x-date" in covered:
        times.append(seconds(received["x-date"][0]))
    if not any(time is not None and abs(int(now) - time) <= skew for time in times):
        return False
    for name in required:
        name = name.lower()
        if name not in covered and not (name == "date" and "x-date" in covered):
            return False

    try:
        text = fields["signature"]
        signature = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    for form in targets(target):
        whole = fields["keyId"] + "\n"
        for line in lines:
            whole += (f"{method} {form}" if line == "@request-target" else line) + "\n"
        for secret in keys[fields["keyId"]]:
            if hmac.new(secret, whole.encode("latin-1"), HASHES[algorithm]).digest() == signature:
                return body is None or digest_right(received, covered, body, require_signed_digest)
    return False


def parameters(text: str) -> dict[str, str] | None:
    """The fields of an `Authorization` value; None for another scheme."""
    if not text.startswith("Signature"):
        return None
    rest = text[9:]
    if rest and rest[0] not in " \t":
        return None
    pieces = rest.split(",")
    if any(piece.lstrip(" \t").startswith(("Signature ", "Signature\t")) for piece in pieces[1:]):
        return None  # two headers in one
    fields = {}
    for piece in pieces:
        found = first_field(piece)
        if found:
            fields[found[0]] = found[1]
    return fields


def first_field(piece: str) -> tuple[str, str] | None:
    """The first name="value" of a piece."""
    letters = string.ascii_letters + string.digits
    for place in range(len(piece)):
        if piece[place : place + 2] != '="':
            continue
        end = piece.find('"', place + 2)
        name = ""
        for character in reversed(piece[:place]):
            if character not in letters:
                break
            name = character + name
        if name and end >= 0:
            return name, piece[place + 2 : end]
    return None


def seconds(text: str) -> int | None:
    """Unix seconds of an HTTP date; the text of the weekday is not looked at."""
    for zone in ("GMT", "UTC", "UT", "Z", "+0000"):
        if text.endswith(" " + zone):
            text = text[: -len(zone)].rstrip(" ")
            break
    try:
        if "," in text:
            rest = text.split(",", 1)[1].strip(" ")
            if "-" in rest:
                day, month, year_and_time = rest.split("-")
                year, time = year_and_time.split(" ")
                full = int(year) + (2000 if int(year) < 70 else 1900)
                rest = f"{day} {month} {full} {time}"
            when = datetime.strptime(rest, "%d %b %Y %H:%M:%S")
        else:
            _, month, day, time, year = text.split()
            when = datetime.strptime(f"{day} {month} {year} {time}", "%d %b %Y %H:%M:%S")
    except ValueError:
        return None
    result = int(when.replace(tzinfo=UTC).timestamp())
    standard = parsedate_tz(text)
    if standard and "-" not in text:
        # The library's own reading must agree.
        assert datetime(*standard[:6]) == when
    return result if result >= 0 else None


def targets(target: str) -> list[str]:
    """The forms of a request target that may stand in the string."""
    for prefix in ("http://", "https://"):
        if target.lower().startswith(prefix):
            rest = target[len(prefix) :]
            places = [rest.find(character) for character in "/?#" if character in rest]
            target = rest[min(places) :] if places else ""
            if not target.startswith("/"):
                target = "/" + target
    path, mark, query = target.partition("?")
    tail = "?" + query if query else ""
    forms = [target]
    paths = [path]
    decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    harmless = "#" not in path and "\\" not in decoded
    for character in "/?#\r\n\0":
        if decoded.count(character) > path.count(character):
            harmless = False
    for place, character in enumerate(decoded):
        escape = decoded[place + 1 : place + 3]
        if character == "%" and len(escape) == 2 and all(digit in string.hexdigits for digit in escape):
            harmless = False
    if harmless:
        while "//" in decoded:
            decoded = decoded.replace("//", "/")
        paths.append(decoded)
    for form in paths:
        forms.append(form + tail)
        if not query:
            forms.append(form + "?")
    return forms


def digest_right(received: dict[str, list[str]], covered: set[str], body: bytes, must_be_signed: bool) -> bool:
    """Whether the `Digest` header is signed and is the body's."""
    if "digest" not in received or (must_be_signed and "digest" not in covered):
        return False
    text = received["digest"][0]
    return text in (
        "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode(),
        "SHA-512=" + base64.b64encode(hashlib.sha512(body).digest()).decode(),
    )
