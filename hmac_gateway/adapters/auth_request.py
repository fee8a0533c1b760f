"""What a proxy in front asks the auth endpoint about: the request that it got itself, told in headers.

For nginx's `auth_request`. Pure functions, called by `proxy.auth_endpoint` for the gateway lane and the Django view.
Imports `core` and `trust`. Whoever may not speak for others is not listened to: its request is then judged as it came.
What can be read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Final, NamedTuple

from ..core.errors import Rejected
from ..core.message import Message
from ..core.reasons import Reason
from ..core.words import Answer, answer
from ..trust import trust

#: Where the endpoint answers in the gateway lane, before any route.
PATH: Final = "/.hmac-gateway/auth"
#: Peers that may tell of other requests without being listed in TRUSTED_PROXIES; also as a socket for both families
#: writes them.
LOOPBACK: Final = ("127.0.0.0/8", "::1", "::ffff:127.0.0.0/104")

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: A request line cannot hold these; a header can hold some of them.
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]*)(.*)", re.I | re.A | re.S)
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+")
#: nginx's $server_protocol, and the version as ASGI writes it.
_VERSIONS: Final = {
    "HTTP/1.0": "1.0",
    "HTTP/1.1": "1.1",
    "HTTP/2": "2",
    "HTTP/2.0": "2",
    "HTTP/3": "3",
    "HTTP/3.0": "3",
}


class Originals(NamedTuple):
    """Names, in lower case, of the headers that tell of the original request; "" is never looked for."""

    method: str = "x-original-method"
    uri: str = "x-original-uri"
    proto: str = "x-original-proto"


class Asked(NamedTuple):
    """The request to judge. `told`: its target was told by a proxy, and is not the endpoint's own."""

    message: Message
    told: bool


def originals(setting: Mapping[str, str]) -> Originals:
    """The header names of the setting ORIGINAL_HEADERS: `method`, `uri` and `proto`, in any case."""
    return Originals(*(setting[key].lower() for key in Originals._fields))


def speakers(proxies: Iterable[str]) -> Callable[[str], bool]:
    """Says of a peer's address whether it may tell of other requests: TRUSTED_PROXIES and loopback.

    Raises ConfigError for an entry that is no address and no network.
    """
    return trust([*proxies, *LOOPBACK])


def asked(message: Message, names: Originals, speaks: bool, real_ip: bool, dialect: str = "apisix") -> Asked | Rejected:
    """The request that a proxy was asked, from the auth request as received; or why it cannot be told.

    `speaks`: the peer may tell of other requests; if not, the message itself is what is judged. Each of three headers
    may tell a part, and what none tells stays the auth request's own: the method; the target, as `/path?query` or as
    `http://host/path?query`, whose host must be the Host header's; the protocol, as `HTTP/1.1` (nginx's
    $server_protocol), `https`, or both with a blank between. All other headers, Host included, are the auth request's.

    `real_ip`: the peer's X-Real-IP is believed. The address of a client of whom a proxy tells is that or "", never the
    proxy's own: a route for the proxy's addresses is not for its clients.
    """
    if not speaks:
        return Asked(message, False)
    method, uri, proto = (message.get(name) if name else None for name in names)
    if method is None and uri is None and proto is None:
        return Asked(message, False)
    twice = sorted(message.duplicated.intersection(names))
    if twice:
        return Rejected(Reason.DUPLICATE_HEADER, dialect=dialect, facts={"header": ", ".join(twice)})
    if method is not None and not _TOKEN.fullmatch(method):
        return Rejected(Reason.MALFORMED, dialect=dialect, detail=f"{names.method} is not a method")
    scheme = version = None
    if proto is not None:
        for word in proto.split(" "):
            if word in ("http", "https") and scheme is None:
                scheme = word
            elif word in _VERSIONS and version is None:
                version = _VERSIONS[word]
            else:
                return Rejected(Reason.MALFORMED, dialect=dialect, detail=f"{names.proto} is not a protocol")
    target = message.target
    if uri is not None:
        why = "the original URI holds a control character or a blank" if _UNSAFE.search(uri) else ""
        if "#" in uri:
            why = "the original URI holds a fragment"
        absolute = None if uri.startswith("/") else _ABSOLUTE.fullmatch(uri)
        if absolute is not None:
            its_scheme, host, uri = absolute[1].lower(), absolute[2], absolute[3]
            if host.lower() != message.authority.lower():
                why = "the original URI names another host than Host"
            elif scheme is not None and scheme != its_scheme:
                why = "the original URI and protocol name different schemes"
            scheme = its_scheme
            uri = uri if uri.startswith("/") else "/" + uri
        elif not uri.startswith("/"):
            why = "the original URI is neither a path nor an absolute URI"
        if why:
            return Rejected(Reason.AMBIGUOUS_PATH, dialect=dialect, facts={"why": why})
        target = uri
    original = Message(
        method or message.method,
        target,
        message.headers,
        scheme or message.scheme,
        message.authority,
        version or message.http_version,
        _client(message) if real_ip else "",
        uri is not None or message.target_exact,
    )
    return Asked(original, uri is not None)


def refusal(rejected: Rejected, request_id: str = "") -> Answer:
    """What the endpoint answers to a refusal: 401 with its challenge, and 403 for everything else.

    nginx makes 500 of any other status. The words are those that the other lanes give.
    """
    found = answer(rejected, request_id)
    return found if found.status == 401 else found._replace(status=403)


def _client(message: Message) -> str:
    """The address in X-Real-IP; "" where there is not exactly one."""
    text = message.get("x-real-ip")
    if text is None or "x-real-ip" in message.duplicated or not _ADDRESS.fullmatch(text):
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
