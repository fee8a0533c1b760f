"""Signing for callers: `sign_headers()` needs nothing but the standard library, and no Django.

Used by partners' scripts, `hmac_sign` and `hmac_demo`. Imports `core` and `schemes`; `HmacAuth` is the one of
`client.requests`, and requests is imported when it is asked for. The one for httpx is `client.httpx.HmacAuth`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.macs import encode_base64
from ..core.message import Message
from ..schemes import SCHEMES, HmacProxy
from .signer import usable

if TYPE_CHECKING:
    from .requests import HmacAuth

__all__ = ["HmacAuth", "sign_headers"]


def __getattr__(name: str) -> Any:
    if name == "HmacAuth":
        from .requests import HmacAuth

        return HmacAuth
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def sign_headers(
    method: str,
    url: str,
    *,
    key_id: str = "",
    secret: str | bytes,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    signed: Sequence[str] | None = None,
    algorithm: str | None = None,
    scheme: str = "apisix",
    sign_header: str = "X-Signature",
    now: float | None = None,
) -> dict[str, str]:
    """The headers to send so that a request is signed.

    `url` is the whole URL, escaped exactly as it will be sent; `body` the exact bytes (None: no body, and no Digest);
    `headers` are those of the request that may be signed too; `signed` the header names and components to cover, in
    order: by default the target, the date and, with a body, its digest. `now` is Unix seconds. Text beyond ASCII is
    taken as UTF-8. `algorithm` is one of hmac-sha1, hmac-sha256 (the default), hmac-sha384, hmac-sha512. Returns Date,
    Digest (with a body), Host (where it is in `signed`) and what the scheme adds, to be sent beside `headers`. Raises
    ValueError for a header in `signed` that the request does not have, and for a key id, scheme or algorithm that
    cannot be used.

    With the scheme hmacproxy, target and body are always signed: `signed` are the headers that the other side signs,
    present or not, none by default; `algorithm` is a digest (sha1 by default); no key id is sent. What is returned is
    `sign_header`, with Date and Content-Length where they are in `signed` and not in `headers`.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme: {scheme!r} was given; allowed: {', '.join(sorted(SCHEMES))}")
    algorithm = usable(scheme, algorithm)
    if not key_id and scheme != HmacProxy.name:
        raise ValueError("key_id: nothing was given; allowed: the id of the key whose secret signs")
    parts = urlsplit(url)
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if "?" in url.partition("#")[0] else path
    sent = {name.lower(): (name, value) for name, value in (headers or {}).items()}
    added: dict[str, str] = {}
    key = secret.encode() if isinstance(secret, str) else secret
    if scheme == HmacProxy.name:
        listed = {name.lower() for name in signed or ()}
        if "date" in listed and "date" not in sent:
            added["Date"] = formatdate(time() if now is None else now, usegmt=True)
        if "content-length" in listed and "content-length" not in sent and body is not None:
            added["Content-Length"] = str(len(body))
        pairs = [(name, _wire(value)) for name, value in [*sent.values(), *added.items()]]
        signing = HmacProxy(sign_header, tuple(signed or ()))
        message = Message(method, _wire(target), pairs)
        return added | dict(signing.sign(message, secret=key, algorithm=algorithm, body=body or b""))
    if "date" not in sent and "x-date" not in sent:
        added["Date"] = formatdate(time() if now is None else now, usegmt=True)
    if body is not None and "digest" not in sent:
        added["Digest"] = "SHA-256=" + encode_base64(hashlib.sha256(body).digest())
    if signed is None:
        dates = ["x-date"] if "x-date" in sent else ["date"]
        signed = ["@request-target", *dates, *(["digest"] if body is not None else [])]
    if "host" not in sent and any(name.lower() == "host" for name in signed):
        # Said here: some clients would leave out a port that goes without saying, others not.
        added["Host"] = parts.netloc.rpartition("@")[2]
    everything = sent | {name.lower(): (name, value) for name, value in added.items()}
    components = SCHEMES[scheme].components
    for name in signed:
        if name not in components and name.lower() not in everything:
            allowed = " or ".join(sorted(components))
            raise ValueError(f"signed: {name!r} was given; allowed: headers of the request, or {allowed}")
    message = Message(method, _wire(target), [(name, _wire(value)) for name, value in everything.values()])
    result = SCHEMES[scheme].sign(message, key_id=_wire(key_id), secret=key, algorithm=algorithm, headers=signed)
    return added | dict(result)


def _wire(text: str) -> str:
    """Text as bytes-as-text: what is beyond latin-1 goes out as UTF-8."""
    return text if text.isascii() else text.encode().decode("latin-1")
