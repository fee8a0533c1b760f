"""What a proxy in front asks the auth endpoint about: the request that it got itself, told in headers or in the path.

For nginx's `auth_request`, Traefik's ForwardAuth, Caddy's forward_auth and Envoy's ext_authz over HTTP: one of them, as
configured, since two sources could tell different things. Pure functions, called by `proxy.auth_endpoint` for the
gateway lane and the Django view. Imports `core` and `trust`. Whoever may not speak for others is not listened to: its
request is then judged as it came. What can be read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Final, NamedTuple

from ..core.errors import ConfigError, Rejected
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
#: What Traefik calls the protocol of a request that asks for a WebSocket.
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
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
    """How a proxy tells of the original request: names, in lower case, of headers; "" is never looked for.

    With `prefix` the target is told by the path instead: it is what follows that prefix.
    """

    method: str = "x-original-method"
    uri: str = "x-original-uri"
    proto: str = "x-original-proto"
    host: str = ""
    prefix: str = ""

    @property
    def ok(self) -> int:
        """The status that lets a request in: nginx, Traefik and Caddy take any 2xx, Envoy nothing but 200."""
        return 200 if self.prefix else 202


_FORWARDED: Final = Originals("x-forwarded-method", "x-forwarded-uri", "x-forwarded-proto", "x-forwarded-host")
#: By the proxy in front. Traefik's requests have a Host of their own; Envoy's have the original's method and Host.
STYLES: Final[Mapping[str, Originals]] = {
    "nginx": Originals(),
    "traefik": _FORWARDED,
    "caddy": _FORWARDED,
    "envoy": Originals("", "", "x-forwarded-proto", "", PATH),
}
#: What a dict in ORIGINAL_HEADERS may name.
NAMED: Final = ("method", "uri", "proto", "host")


class Asked(NamedTuple):
    """The request to judge. `told`: its target was told by a proxy, and is not the endpoint's own."""

    message: Message
    told: bool


def originals(setting: str | Mapping[str, str]) -> Originals:
    """What the setting ORIGINAL_HEADERS says: a key of STYLES, or header names, in any case, in place of nginx's.

    Raises ConfigError for another word or key.
    """
    if isinstance(setting, str):
        if setting not in STYLES:
            raise ConfigError("ORIGINAL_HEADERS", setting, f"one of {', '.join(STYLES)}, or header names")
        return STYLES[setting]
    for key in setting:
        if key not in NAMED:
            raise ConfigError("ORIGINAL_HEADERS", key, f"names for {', '.join(NAMED)}")
    return Originals()._replace(**{key: name.lower() for key, name in setting.items()})


def speakers(proxies: Iterable[str]) -> Callable[[str], bool]:
    """Says of a peer's address whether it may tell of other requests: TRUSTED_PROXIES and loopback.

    Raises ConfigError for an entry that is no address and no network.
    """
    return trust([*proxies, *LOOPBACK])


def asked(message: Message, names: Originals, speaks: bool, real_ip: bool, dialect: str = "apisix") -> Asked | Rejected:
    """The request that a proxy was asked, from the auth request as received; or why it cannot be told.

    `speaks`: the peer may tell of other requests; if not, the message itself is what is judged. Each header may tell a
    part, and what none tells stays the auth request's own: the method; the target, as `/path?query` or as
    `http://host/path?query`, whose host must be the told one or the Host header's; the protocol, as `HTTP/1.1` (nginx's
    $server_protocol), `https`, or both with a blank between; the host. All other headers are the auth request's.

    `real_ip`: the peer's X-Real-IP is believed. The address of a client of whom a proxy tells is that or "", never the
    proxy's own: a route for the proxy's addresses is not for its clients.
    """
    if not speaks:
        return Asked(message, False)
    method, uri, proto, host = (message.get(name) if name else None for name in names[:4])
    if names.prefix and message.target.startswith(names.prefix + "/"):
        uri = message.target[len(names.prefix) :]
    if method is None and uri is None and proto is None and host is None:
        return Asked(message, False)
    twice = sorted(message.duplicated.intersection(names))
    if twice:
        return Rejected(Reason.DUPLICATE_HEADER, dialect=dialect, facts={"header": ", ".join(twice)})
    if method is not None and not _TOKEN.fullmatch(method):
        return Rejected(Reason.MALFORMED, dialect=dialect, detail=f"{names.method} is not a method")
    scheme = version = None
    if proto is not None:
        for word in proto.split(" "):
            if word in _SCHEMES and scheme is None:
                scheme = _SCHEMES[word]
            elif word in _VERSIONS and version is None:
                version = _VERSIONS[word]
            else:
                return Rejected(Reason.MALFORMED, dialect=dialect, detail=f"{names.proto} is not a protocol")
    # Not what a Django site may have made of X-Forwarded-Host: that can be the client's.
    headers, authority = message.headers, message.get("host") or message.authority
    if host is not None:
        # Where the proxy's own request has another one, that of the client is what was signed and what routes are for.
        authority = host
        headers = [("host", host), *(pair for pair in headers if pair[0] != "host")]
    target = message.target
    if uri is not None:
        why = "the original URI holds a control character or a blank" if _UNSAFE.search(uri) else ""
        if "#" in uri:
            why = "the original URI holds a fragment"
        absolute = None if uri.startswith("/") else _ABSOLUTE.fullmatch(uri)
        if absolute is not None:
            its_scheme, named, uri = absolute[1].lower(), absolute[2], absolute[3]
            if named.lower() != authority.lower():
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
        headers,
        scheme or message.scheme,
        authority,
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
    if found.status == 401:
        return found
    # Those of a 426 are about a connection that is not the client's.
    headers = [pair for pair in found.headers if pair[0] not in ("connection", "upgrade")]
    return found._replace(status=403, headers=headers)


def _client(message: Message) -> str:
    """The address in X-Real-IP; "" where there is not exactly one."""
    text = message.get("x-real-ip")
    if text is None or "x-real-ip" in message.duplicated or not _ADDRESS.fullmatch(text):
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
