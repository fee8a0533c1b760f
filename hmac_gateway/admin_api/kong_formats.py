"""The forms that texts of Kong's entities have, and the specs that many entities share.

Each `check_…` returns Kong's reason against a text, or None. Source: the type definitions of Kong's schemas (3.x).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError

from ..validators import METHODS, Problems, check_regex, is_host
from .kong_spec import NOT_UUID, Spec, is_uuid

#: All that this gateway speaks, and Kong's others.
HTTP_PROTOCOLS: Final = ("grpc", "grpcs", "http", "https")
_STREAMS: Final = ("tcp", "tls", "tls_passthrough", "udp")
MAX_TIMEOUT: Final = 2**31 - 2

_HEADER: Final = re.compile(r"[A-Za-z0-9_-]+")


def check_uuid(value: str) -> str | None:
    """An id."""
    return None if is_uuid(value) else NOT_UUID


def check_name(value: str) -> str | None:
    """A name that may stand in an address: letters, digits, `.`, `-`, `_`, `~` and what is not ASCII."""
    if re.fullmatch(r"(?:[A-Za-z0-9._~-]|[^\x00-\x7f])+", value):
        return None
    return f"invalid value '{value}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"


def check_tag(value: str) -> str | None:
    """A tag: printable, without the two characters that join tags in `?tags=`."""
    if value.strip() and not re.search(r"[,/\x00-\x1f\x7f]", value):
        return None
    return f"invalid tag '{value}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"


def _port_of(value: str) -> str | None:
    found = re.fullmatch(r"(?:\[[^\]]*\]|[^:]*):(.*)", value)
    return found[1] if found else None


def check_host(value: str) -> str | None:
    """A host name or an IP address, without a port."""
    if is_host(value):
        return None
    if _port_of(value) is not None:
        return "must not have a port"
    return f"invalid value: {value}"


def check_sni(value: str) -> str | None:
    """A host name as TLS clients send it."""
    reason = check_host(value)
    if reason is None:
        try:
            ipaddress.ip_address(value.strip("[]"))
        except ValueError:
            return None
        return "must not be an IP"
    return reason


def check_host_pattern(value: str) -> str | None:
    """A host of a route: with one wildcard as its first or last label, and a port, if wanted."""
    found = re.fullmatch(r"(.+):([0-9]+)", value)
    name = found[1] if found and value.count(":") == 1 else value
    if found and name != value and not 0 < int(found[2][:6]) < 65536:
        return "invalid port number"
    if "*" in name:
        if name.count("*") > 1:
            return "invalid wildcard: must have at most one wildcard"
        if not (name.startswith("*.") or name.endswith(".*")):
            return "invalid wildcard: must be placed at leftmost or rightmost label"
    bare = name.removeprefix("*.").removesuffix(".*")
    return None if is_host(bare) else f"invalid hostname: {value}"


def check_path(value: str) -> str | None:
    """A path of a service or a health check."""
    if not value.startswith("/"):
        return "should start with: /"
    if "//" in value:
        return "must not have empty segments"
    return _outside(value)


def _outside(value: str) -> str | None:
    if any(char.isspace() or not char.isprintable() or char in "?#\\" for char in value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986 found)"
    if found := re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", value):
        return f"invalid url-encoded value: '{found[0]}'"
    return None


def check_route_path(value: str) -> str | None:
    """A path of a route: `/prefix`, normalised, or `~/regex`."""
    if value.startswith("~/"):
        return check_pattern(value[1:])
    if not value.startswith("/"):
        return "should start with: / (fixed path) or ~/ (regex path)"
    parts: list[str] = []
    for part in value.split("/")[1:]:
        if part == "..":
            del parts[-1:]
        elif part != ".":
            parts.append(part)
    normal = re.sub("//+", "/", "/" + "/".join(parts))
    if normal != value:
        return f"non-normalized path, consider use '{normal}' instead"
    return _outside(value)


def check_pattern(pattern: str) -> str | None:
    """A regular expression that the router can take."""
    problems = Problems()
    check_regex(problems, "", pattern)
    try:
        problems.raise_if_any()
    except ValidationError as error:
        why = error.messages[0].partition("allowed is ")[2].rstrip(".")
        return f"invalid regex: '{pattern}' (expected {why})"
    return None


def check_header_name(value: str) -> str | None:
    """A header's name."""
    if _HEADER.fullmatch(value):
        return None
    return f"bad header name '{value}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def check_cookie_name(value: str) -> str | None:
    """A cookie's name."""
    if _HEADER.fullmatch(value):
        return None
    return f"bad cookie name '{value}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def check_method(value: str) -> str | None:
    """A request method that a route can name."""
    if value in METHODS:
        return None
    upper = re.fullmatch("[A-Z]+", value)
    return f"expected one of: {', '.join(METHODS)}" if upper else f"invalid value: {value}"


def check_protocol(value: str) -> str | None:
    """A protocol of Kong's that is spoken here."""
    if value in HTTP_PROTOCOLS:
        return None
    return f"streams are not forwarded by this gateway; expected one of: {', '.join(HTTP_PROTOCOLS)}"


def no_certificates(value: Any) -> str | None:
    """There are no certificate entities to refer to."""
    return "certificates are not kept by this gateway; TLS files are given to upstreams as tls"


# --- specs that entities share ---

ID: Final = Spec(kind="string", auto=True, check=check_uuid)
#: Up to the year 9999; a time in milliseconds, as Kong wrote them before 1.0, is far beyond it in seconds.
STAMP: Final = Spec(kind="integer", auto=True, between=(0, 253402300799_000))
NAME: Final = Spec(kind="string", unique=True, check=check_name, length=(1, 256))
TAGS: Final = Spec(kind="set", elements=Spec(kind="string", required=True, check=check_tag, length=(1, 256)))
HOST: Final = Spec(kind="string", check=check_host)
PATH: Final = Spec(kind="string", check=check_path, length=(1, 4096))
TIMEOUT: Final = Spec(kind="integer", default=60000, between=(1, MAX_TIMEOUT))
HEADER_NAME: Final = Spec(kind="string", check=check_header_name)
METHOD: Final = Spec(kind="string", check=check_method)
PROTOCOL: Final = Spec(kind="string", required=True, one_of=HTTP_PROTOCOLS + _STREAMS, check=check_protocol)


def flag(default: bool) -> Spec:
    """A boolean that is never null."""
    return Spec(kind="boolean", required=True, default=default)


def foreign(reference: str, fields: Mapping[str, Spec] | None = None, required: bool = False) -> Spec:
    """A reference to another entity, `{"id": …}`, or by a unique one of its fields."""
    return Spec(kind="foreign", reference=reference, fields=fields or {}, required=required)


def protocols(default: tuple[str, ...], element: Spec = PROTOCOL) -> Spec:
    """The set of protocols of a route or plugin."""
    return Spec(
        kind="set",
        required=True,
        default=list(default),
        length=(1, None),
        elements=element,
    )
