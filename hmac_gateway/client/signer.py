"""What the auth classes for requests and httpx share: options checked once, then one signature per send.

Called by `client.requests` and `client.httpx`, which know what their library puts on the wire. Imports `core` and
`schemes`; standard library only.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any, Final

from ..core.credential import Secret
from ..core.macs import ALGORITHMS, encode_base64
from ..core.message import Message
from ..schemes import SCHEMES, HmacProxy
from ..schemes.hmacproxy import available, text

#: What no scheme can carry inside the quotes of its header.
_UNQUOTABLE: Final = re.compile(r'[",\x00-\x1f\x7f]')


class Signer:
    """A key and how to sign with it.

    `key_id` and `secret` are the credential (text is taken as UTF-8); `scheme` a name in `schemes.SCHEMES`;
    `algorithm` one of `core.macs.ALGORITHMS`; `signed` the header names and components to cover, in order, None for
    target, date, digest and nonce, as far as there are any; `nonce` adds a random `X-Nonce` to each request, and to
    `signed`; `digest` adds the SHA-256 `Digest` of each body, the empty one too, unless `signed` leaves it out;
    `clock` gives Unix seconds. With the scheme hmacproxy the body is always signed, in `sign_header`; `signed` are
    headers, None for none, and `digest` is no matter. Raises ValueError for anything else.
    """

    def __init__(
        self,
        key_id: str,
        secret: str | bytes,
        *,
        scheme: str,
        algorithm: str | None,
        signed: Sequence[str] | None,
        nonce: bool,
        digest: bool,
        sign_header: str,
        clock: Callable[[], float],
    ) -> None:
        #: Whether the MAC covers the body itself: `sign` then wants to have it fed.
        self.whole = scheme == HmacProxy.name
        if not (key_id or self.whole) or _UNQUOTABLE.search(key_id):
            raise ValueError(f"key_id: {key_id!r} was given; allowed: text without quotes, commas and controls")
        if not secret:  # often a variable of the environment that is not set
            raise ValueError("secret: nothing was given; allowed: text or bytes, at least one")
        if scheme not in SCHEMES:
            raise ValueError(f"scheme: {scheme!r} was given; allowed: {', '.join(sorted(SCHEMES))}")
        self.algorithm = usable(scheme, algorithm)
        if isinstance(signed, str):
            raise ValueError(f"signed: {signed!r} was given; allowed: a list of header names, or None")
        self.key_id = key_id
        self.scheme = scheme
        self._secret = Secret(secret.encode() if isinstance(secret, str) else secret)
        self._clock = clock
        self._nonce = nonce
        self._signed = ([] if self.whole else None) if signed is None else list(signed)
        listed = [] if signed is None else [name.lower() for name in signed]
        if self._signed is not None and nonce and "x-nonce" not in listed:
            # One that is not signed could be changed by whoever repeats the request.
            self._signed.append("x-nonce")
        #: Whether `sign` wants the digest of the body.
        self.digests = not self.whole and digest and (signed is None or "digest" in listed)
        #: Whether the Host header is covered, which libraries add only when they send.
        self.host = "host" in listed
        self._date = "X-Date" if "x-date" in listed and "date" not in listed else "Date"
        if self.whole and not {"date", "x-date"} & set(listed):
            self._date = ""
        self._sign_header = sign_header if self.whole else "Authorization"
        #: Headers that are set for each send, lower case.
        self.own = {self._sign_header.lower(), *([self._date.lower()] if self._date else [])}
        self.own |= ({"digest"} if self.digests else set()) | ({"x-nonce"} if nonce else set())

    def sign(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        digest: bytes | None,
        feed: Callable[[Callable[[bytes], Any]], Any] = lambda update: None,
    ) -> dict[str, str]:
        """The headers to set, `own` all of them, for a request that is about to be sent.

        `target` is what stands on the request line, `headers` what else will be sent, both as bytes-as-text, and so
        is the result; `digest` the SHA-256 of the body where `digests` asks for it; `feed` gives the body to what it
        is called with, where `whole` asks for it. Raises ValueError for a header in `signed` that the request does not
        have.
        """
        added = {self._date: formatdate(self._clock(), usegmt=True)} if self._date else {}
        if self.digests and digest is not None:
            added["Digest"] = "SHA-256=" + encode_base64(digest)
        if self._nonce:
            added["X-Nonce"] = secrets.token_urlsafe(18)
        pairs = [(name, value) for name, value in headers if name.lower() not in self.own]
        message = Message(method, target, [*pairs, *added.items()])
        if self.whole:
            head = HmacProxy(self._sign_header, tuple(self._signed or [])).head(message)
            running = hmac.new(self._secret.reveal(), head, self.algorithm)
            feed(running.update)
            return added | {self._sign_header: text(self.algorithm, running.digest())}
        signed = self._signed
        if signed is None:
            # A Digest that the caller has set stands for a body that is not read here.
            signed = ["@request-target", "date", *(["digest"] if message.get("digest") is not None else [])]
            signed += ["x-nonce"] if self._nonce else []
        components = SCHEMES[self.scheme].components
        for name in signed:
            if name not in components and message.get(name.lower()) is None:
                allowed = " or ".join(sorted(components))
                raise ValueError(f"signed: {name!r} was given; allowed: headers of the request, or {allowed}")
        result = SCHEMES[self.scheme].sign(
            message,
            key_id=self.key_id.encode().decode("latin-1"),
            secret=self._secret.reveal(),
            algorithm=self.algorithm,
            headers=signed,
        )
        return added | dict(result)

    def __repr__(self) -> str:
        return f"HmacAuth({self.key_id!r}, scheme={self.scheme!r}, algorithm={self.algorithm!r})"


def usable(scheme: str, algorithm: str | None) -> str:
    """The algorithm as the scheme names it, its default for None; ValueError for one that it does not have."""
    if scheme == HmacProxy.name:
        algorithm = (algorithm or "sha1").removeprefix("hmac-")
        known = available()
    else:
        algorithm = algorithm or "hmac-sha256"
        known = tuple(sorted(ALGORITHMS))
    if algorithm not in known:
        raise ValueError(f"algorithm: {algorithm!r} was given; allowed: {', '.join(known)}")
    return algorithm
