"""`HmacAuth` for httpx: `httpx.Client(auth=HmacAuth(key_id, secret))`, and `httpx.AsyncClient` alike.

Used by callers of signed services. Imports `client.signer` and httpx, which the extra `httpx` installs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from time import time
from typing import NoReturn

import httpx

from .signer import Signer


class HmacAuth(httpx.Auth):
    """Signs every request of a client, or one that it is given to, anew each time the request is sent.

    `key_id` and `secret` (text or bytes; text is taken as UTF-8) are the credential. `scheme` is the signature
    format, `algorithm` one of hmac-sha1, hmac-sha256 (the default), hmac-sha384, hmac-sha512. `signed` lists the
    header names and components to cover, in order; None covers target, date, and digest and nonce where there are
    any. `nonce` adds a random `X-Nonce`, so that equal requests differ. `digest` adds the SHA-256 `Digest` of the
    body, the empty one too; httpx then reads generators and files into memory first. With `digest=False` bodies are
    streamed unsigned; a `Digest` header of the caller's is signed. `clock` gives Unix seconds. `Date` (`X-Date`,
    where only that is in `signed`), `Digest` and `X-Nonce` of the caller's are replaced. Raises ValueError for
    options that are not allowed.

    httpx follows redirects with the first signature, and takes it away on the way to another origin. Where the
    redirected request is refused with 401, it is signed and sent once more.

    With the scheme hmacproxy the signature stands in `sign_header` and always covers target and body; `signed` are the
    headers that the other side signs (None: none, and then there is no Date); `algorithm` is a digest, sha1 by default;
    the key id is not sent and may be "". **httpx does not know that header for a credential and takes it along to
    other origins**, so leave `follow_redirects` off there; nothing is signed anew for another origin.
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
        self.requires_request_body = self._signer.digests or self._signer.whole

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Called by httpx for each send, in both of its clients."""
        while True:  # httpx counts what is sent again among the redirects, of which it has a limit
            self._sign(request)
            response = yield request
            answered = response.request
            if response.status_code != 401 or answered is request:
                return
            if self._signer.whole:
                followed = _origin(answered) == _origin(request)
            else:
                followed = "Authorization" in answered.headers
            if not followed:
                return
            request = answered

    def __call__(self, request: object) -> NoReturn:
        """What requests would call: said here, since it has a class of its own. httpx never does."""
        raise TypeError(
            f"HmacAuth: a request of {type(request).__module__.partition('.')[0]} was given; allowed: one of httpx. "
            "For requests: from hmac_gateway.client import HmacAuth"
        )

    def _sign(self, request: httpx.Request) -> None:
        signer = self._signer
        kept = [
            (name, value) for name, value in request.headers.raw if name.decode("latin-1").lower() not in signer.own
        ]
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in kept]
        digest = hashlib.sha256(_body(request)).digest() if signer.digests else None
        target = request.url.raw_path.decode("latin-1")
        added = signer.sign(request.method, target, pairs, digest, lambda update: update(_body(request)))
        # As bytes: set one by one, text beyond ASCII would be encoded again.
        request.headers = httpx.Headers(
            [*kept, *((name.encode("ascii"), value.encode("latin-1")) for name, value in added.items())]
        )

    def __repr__(self) -> str:
        return repr(self._signer)


def _origin(request: httpx.Request) -> tuple[str, str, int | None]:
    return request.url.scheme, request.url.host, request.url.port


def _body(request: httpx.Request) -> bytes:
    """The body, which httpx has read, as `requires_request_body` asks for."""
    if isinstance(request.stream, httpx.ByteStream):
        # A redirected request has the bytes, but has not looked at them.
        return request.read()
    return request.content
