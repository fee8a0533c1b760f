"""`HmacAuth` for requests: `requests.get(url, auth=HmacAuth(key_id, secret))`.

Used by callers of signed services, as `hmac_gateway.client.HmacAuth` too. Imports `client.signer` and requests. It
signs when headers are handed to the connection, not when the request is prepared: requests asks an auth object once,
and what was prepared may be sent late, again, or to where a redirect leads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, ItemsView, Iterator, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.models import PreparedRequest
from requests.sessions import SessionRedirectMixin
from requests.structures import CaseInsensitiveDict

from .signer import Signer

if TYPE_CHECKING:
    _Texts = CaseInsensitiveDict[str]
else:
    _Texts = CaseInsensitiveDict

#: Asked for the target that it would send: versions of requests differ in it.
_ADAPTER: Final = HTTPAdapter()
#: Asked when credentials must not follow a redirect.
_SESSION: Final = SessionRedirectMixin()
_ESCAPE: Final = re.compile("%[0-9a-fA-F]{2}")
_PATH: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/")
_QUERY: Final = _PATH | {ord("?")}
_BLOCK: Final = 256 * 1024


class HmacAuth(AuthBase):
    """Signs every request it is given to, anew each time the request is sent.

    `key_id` and `secret` (text or bytes; text is taken as UTF-8) are the credential. `scheme` is the signature
    format, `algorithm` one of hmac-sha1, hmac-sha256 (the default), hmac-sha384, hmac-sha512. `signed` lists the
    header names and components to cover, in order; None covers target, date, and digest and nonce where there are
    any. `nonce` adds a random `X-Nonce`, so that equal requests differ. `digest` adds the SHA-256 `Digest` of the
    body, the empty one too; a body that can be read only once (a generator, a pipe) then raises ValueError, since
    its digest would have to go first. With `digest=False` such bodies are streamed unsigned; a `Digest` header of
    the caller's is signed. `clock` gives Unix seconds. `Date` (`X-Date`, where only that is in `signed`), `Digest`
    and `X-Nonce` of the caller's are replaced. Where requests takes `Authorization` away, as on a redirect to
    another host, nothing is signed from then on. Raises ValueError for options that are not allowed.

    With the scheme hmacproxy the signature stands in `sign_header` and always covers target and body; `signed` are the
    headers that the other side signs (None: none, and then there is no Date); `algorithm` is a digest, sha1 by default;
    the key id is not sent and may be "". On a redirect to another host nothing is signed either.
    """

    def __init__(
        self,
        key_id: str,
        secret: str | bytes,
        *,
        scheme: str = "apisix",
        algorithm: str | None = None,
        signed: Sequence[str] | None = None,
        nonce: bool = False,
        digest: bool = True,
        sign_header: str = "X-Signature",
        clock: Callable[[], float] = time,
    ) -> None:
        self._signer = Signer(
            key_id,
            secret,
            scheme=scheme,
            algorithm=algorithm,
            signed=signed,
            nonce=nonce,
            digest=digest,
            sign_header=sign_header,
            clock=clock,
        )

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Called by requests at the end of preparing `r`, which is changed and returned."""
        if not hasattr(r, "body"):
            raise TypeError(
                f"HmacAuth: a request of {type(r).__module__.partition('.')[0]} was given; allowed: one of requests. "
                "For httpx: from hmac_gateway.client.httpx import HmacAuth"
            )
        body: Any = r.body
        if isinstance(body, str):
            # What is signed must be bytes; the connection would only now choose an encoding.
            r.body = body.encode()
        elif isinstance(body, (bytearray, memoryview)):
            r.body = bytes(body)
        stream = r.body is not None and not isinstance(r.body, bytes)
        start = _start(r.body) if stream and (self._signer.digests or self._signer.whole) else 0
        headers = _Headers(r, self._signer, start)
        if self._signer.host and "Host" not in headers:
            headers.make_host()
        r.headers = headers
        r.__dict__["copy"] = partial(_copy, r)
        if not stream:
            headers.sign()
        return r

    def __repr__(self) -> str:
        return repr(self._signer)


class _Headers(_Texts):
    """A request's headers; whoever asks for all of them, as a connection does that sends them, gets a new signature.

    `start` is where the body begins in its file. Single headers read as they were sent last.
    """

    def __init__(self, request: PreparedRequest, signer: Signer, start: int) -> None:
        self._signing = False
        self._request = request
        self._signer = signer
        self._start = start
        self._own_host = False
        self._first = str(request.url)
        self._hashed = (b"", hashlib.sha256().digest())
        super().__init__(request.headers)
        self._signing = True

    def make_host(self) -> None:
        """Name the host here: what the connection would write is known only afterwards."""
        self._own_host = True
        super().__setitem__("Host", _host(self._request))

    def sign(self) -> None:
        """Set the headers of a new signature."""
        request, signer = self._request, self._signer
        if signer.whole and _SESSION.should_strip_auth(self._first, str(request.url)):  # type: ignore[no-untyped-call]
            # What requests does with Authorization: the signature names no host, and would hold on the first one.
            self._stop()
            return
        if self._own_host:
            super().__setitem__("Host", _host(request))
        pairs = [(_text(name), _text(value)) for name, value in self._now().items()]
        digest = self._digest() if signer.digests else None
        added = signer.sign(_text(request.method or "GET"), _target(request), pairs, digest, self._feed)
        for name, value in added.items():
            super().__setitem__(name, value)
        shown = request.headers
        if shown is not self and isinstance(shown, _Headers):
            # urllib3 sends a copy; what was sent is looked up in the request.
            for name, value in added.items():
                CaseInsensitiveDict.__setitem__(shown, name, value)

    def _digest(self) -> bytes:
        body: Any = b"" if self._request.body is None else self._request.body
        if body is self._hashed[0]:
            return self._hashed[1]
        if isinstance(body, str):
            body = body.encode()
        if isinstance(body, bytes):
            self._hashed = (body, hashlib.sha256(body).digest())
            return self._hashed[1]
        # Not kept: a file may have changed since.
        return _digest_of_file(body, self._start)

    def _feed(self, update: Callable[[bytes], Any]) -> None:
        body: Any = b"" if self._request.body is None else self._request.body
        if isinstance(body, str):
            body = body.encode()
        for block in [body] if isinstance(body, bytes) else _blocks_of_file(body, self._start):
            update(block)

    def items(self) -> ItemsView[str, str]:
        """All headers as they are to be sent now."""
        if self._signing:
            self.sign()
        return self._now().items()

    def _now(self) -> dict[str, str]:
        return {name: self[name] for name in self}

    def __setitem__(self, key: str, value: str) -> None:
        if key.lower() == "authorization":
            self._stop()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        if key.lower() == "authorization":
            self._stop()

    def _stop(self) -> None:
        # Somebody else authenticates from here on, or nobody may: what came with the signature goes with it.
        if self._signing:
            self._signing = False
            for name in (*self._signer.own, *(["host"] if self._own_host else [])):
                if name in self:
                    super().__delitem__(name)

    def bound(self, request: PreparedRequest) -> _Headers:
        """The same headers for a copy of the request."""
        other = _Headers(request, self._signer, self._start)
        other._own_host, other._signing = self._own_host, self._signing
        other._hashed, other._first = self._hashed, self._first
        return other

    def copy(self) -> _Headers:
        return self.bound(self._request)

    def __repr__(self) -> str:
        return repr(self._now())

    def __reduce__(self) -> tuple[Any, ...]:
        # Answers are pickled with their requests; the secret must not go along.
        return CaseInsensitiveDict, (self._now(),)


def _copy(request: PreparedRequest) -> PreparedRequest:
    """`PreparedRequest.copy` for a request that is signed: requests makes redirected requests with it."""
    copied = type(request).copy(request)
    if isinstance(copied.headers, _Headers):
        copied.headers = copied.headers.bound(copied)
        copied.__dict__["copy"] = partial(_copy, copied)
    return copied


def _text(value: Any) -> str:
    """A header's name or value, or a method, as bytes-as-text: requests takes bytes too."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _host(request: PreparedRequest) -> str:
    return urlsplit(str(request.url)).netloc.rpartition("@")[2]


def _target(request: PreparedRequest) -> str:
    """The request target as it will stand on the request line: urllib3 escapes once more what requests leaves."""
    path, mark, query = _ADAPTER.request_url(request, {}).partition("?")
    return _escaped(path, _PATH) + mark + _escaped(query, _QUERY)


def _escaped(text: str, allowed: frozenset[int]) -> str:
    """A path or query as urllib3 sends it: escapes in capitals; each `%` escaped if one of them begins no escape."""
    text = _ESCAPE.sub(lambda found: found[0].upper(), text)
    if text.count("%") == len(_ESCAPE.findall(text)):
        allowed = allowed | {ord("%")}
    data = text.encode("utf-8", "surrogatepass")
    return "".join([chr(byte) if byte in allowed else f"%{byte:02X}" for byte in data])


def _start(body: Any) -> int:
    """Where a file stands. Raises ValueError for what can be read only once, or yields text."""
    try:
        start: int = body.tell()
        body.seek(start)
        sample = body.read(0)
    except (AttributeError, OSError, TypeError):
        raise ValueError(
            f"body: a {type(body).__name__} was given, which can be read only once; allowed: bytes, text or a binary "
            "file, or HmacAuth(…, digest=False), which leaves the body unsigned"
        ) from None
    if not isinstance(sample, bytes):
        raise ValueError("body: a file in text mode was given; allowed: a file opened with mode 'rb'")
    return start


def _digest_of_file(body: Any, start: int) -> bytes:
    """SHA-256 of a file from `start` on, where it is left."""
    digest = hashlib.sha256()
    for block in _blocks_of_file(body, start):
        digest.update(block)
    return digest.digest()


def _blocks_of_file(body: Any, start: int) -> Iterator[bytes]:
    if not hasattr(body, "seek"):
        start = _start(body)  # the caller has put another body in: refuse it like the first
    body.seek(start)
    yield from iter(lambda: body.read(_BLOCK), b"")
    body.seek(start)
