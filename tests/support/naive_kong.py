"""Kong's hmac-auth once more, written from its description and sharing nothing with the engine: an oracle for tests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

Headers = Sequence[tuple[str, str]]


def _first(headers: Headers, name: str) -> str | None:
    return next((value.strip(" \t") for given, value in headers if given.lower() == name.lower()), None)


def _fields(text: str) -> dict[str, str] | None:
    """username, algorithm, headers and signature, in this order, each in double quotes that hold no quote."""
    text = text.strip(" \t")
    if text[:5] not in ("hmac ", "Hmac ", "hmac\t", "Hmac\t"):
        return None
    text = text[5:].lstrip(" \t")
    found = {}
    for place, name in enumerate(("username", "algorithm", "headers", "signature")):
        if place:
            text = text.lstrip(" \t")
            if not text.startswith(","):
                return None
            text = text[1:].lstrip(" \t")
        if not text.startswith(name + '="'):
            return None
        value, quote, text = text[len(name) + 2 :].partition('"')
        if not quote or not value:
            return None
        found[name] = value
    return found if not text.strip(" \t") else None


def _line(item: str, headers: Headers, method: str, target: str, version: str) -> str:
    value = _first(headers, item)
    if value is None and "_" in item:
        value = _first(headers, item.replace("_", "-"))
    if value is not None:
        return f"{item}: {value}"
    if item == "@request-target":
        return f"@request-target: {method.lower()} {target}"
    if item == "request-line":
        return f"{method} {target} HTTP/{version}"
    return f"{item}:"


def accepts(
    method: str,
    target: str,
    headers: Headers,
    keys: Mapping[str, str],
    now: float,
    *,
    skew: float = 300,
    enforced: Sequence[str] = (),
    allowed: Sequence[str] = ("hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"),
    version: str = "1.1",
) -> bool:
    """Whether a request's signature holds: a signed date in time, every enforced header there and signed."""
    fields = None
    for name in ("Proxy-Authorization", "Authorization"):
        text = _first(headers, name)
        if fields is None and text is not None:
            fields = _fields(text)
    if fields is None:
        return False
    listed = fields["headers"].split(" ")
    signed = {item.lower() for item in listed}
    signed |= {item.lower().replace("_", "-") for item in listed if _first(headers, item) is None}
    fresh = False
    for name in ("date", "x-date"):
        text = _first(headers, name)
        if text is None or name not in signed:
            continue
        try:
            fresh = fresh or abs(int(now) - parsedate_to_datetime(text).timestamp()) <= skew
        except ValueError:
            continue
    there = all(_first(headers, name) is not None or name in ("@request-target", "request-line") for name in enforced)
    if not fresh or not there or not set(enforced) <= signed or fields["algorithm"] not in allowed:
        return False
    secret = keys.get(fields["username"])
    if secret is None:
        return False
    string = "\n".join(_line(item, headers, method, target, version) for item in listed)
    name = getattr(hashlib, fields["algorithm"].removeprefix("hmac-"))
    mac = hmac.new(secret.encode("latin-1"), string.encode("latin-1"), name).digest()
    digits = fields["signature"].rstrip("=")
    try:
        return mac == base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
