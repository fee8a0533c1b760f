"""What configuration values may look like, and the words that say so. Called by the models' `clean()`.

Field validators live here and not in the relocatable apps because migrations write down their import path. Imports
`core`, `regex` and Django's ValidationError only.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

from .core.errors import ConfigError
from .regex import compile_regex

#: What a string key may look like, in words.
KEY_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ -"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE")

_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def shown(value: object) -> str:
    """Return `value` as an error message may quote it: short, on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Problems:
    """Collects what is wrong with an object, field by field, and raises it all at once."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, field: str, given: object, allowed: str) -> None:
        """Note that `field` got `given` where `allowed` (in words) was expected."""
        self.say(field, f"`{field}`: got {shown(given)}, allowed is {allowed}.")

    def say(self, field: str | None, message: str) -> None:
        """Note `message` in its own words; None as `field` means the object as a whole."""
        self._found.setdefault(field or NON_FIELD_ERRORS, []).append(message)

    def raise_if_any(self) -> None:
        """Raise ValidationError with every noted message under its field."""
        if self._found:
            raise ValidationError({field: list(texts) for field, texts in self._found.items()})


def validate_key(value: str) -> None:
    """Field validator for string keys."""
    if not _KEY.fullmatch(value):
        raise ValidationError(f"got {shown(value)}, allowed is {KEY_RULE}.", code="invalid_key")


def validate_labels(value: dict[str, Any]) -> None:
    """Field validator for `labels`: a map of non-blank strings of at most 256 characters."""
    for key, text in value.items():
        if not isinstance(text, str) or not text.strip() or len(text) > 256 or not key.strip():
            raise ValidationError(
                f"`labels`: got {shown({key: text})}, allowed is a non-blank string of 1 to 256 characters."
            )


def validate_tags(value: list[Any]) -> None:
    """Field validator for `tags`: a list of non-blank strings."""
    if not all(isinstance(tag, str) and tag.strip() for tag in value):
        raise ValidationError(f"`tags`: got {shown(value)}, allowed is a list of non-blank strings.")


def storable(value: object) -> bool:
    """Say whether every database can hold `value`: PostgreSQL knows neither NUL in texts nor NaN in JSON."""
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(storable(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return all(storable(part) for part in value)
    return True


def check_strings(problems: Problems, field: str, value: list[Any]) -> list[str]:
    """Return the strings in `value`, after noting what is no string, and what is there twice."""
    texts = [item for item in value if isinstance(item, str)]
    for item in value:
        if not isinstance(item, str):
            problems.add(field, item, "a string")
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            problems.add(field, text, "each item once")
        seen.add(text)
    return texts


def check_methods(problems: Problems, field: str, value: list[Any]) -> None:
    """Note what is not an HTTP method that a route may name."""
    for method in check_strings(problems, field, value):
        if method not in METHODS:
            problems.add(field, method, "one of " + ", ".join(METHODS))


def check_paths(problems: Problems, field: str, value: list[Any], dialect: str) -> None:
    """Note what is not a route path: APISIX `/exact` and `/prefix*`, Kong `/prefix` and `~/regex`."""
    for path in check_strings(problems, field, value):
        if dialect == "kong" and path.startswith("~"):
            if not path.startswith("~/"):
                problems.add(field, path, "/ (a fixed path) or ~/ (a regular expression) at the start")
            else:
                check_regex(problems, field, path[1:])
        elif not path.startswith("/"):
            also = " or ~/ (a regular expression)" if dialect == "kong" else ""
            problems.add(field, path, f"a path that starts with /{also}")
        elif len(path) > 4096:
            problems.add(field, path, "a path of at most 4096 characters")
        elif any(char in "?#\\" or char.isspace() or not char.isprintable() for char in path):
            problems.add(field, path, "a path without blanks, control characters, ?, # and \\")
        elif any(part in (".", "..") for part in path.split("/")) or "//" in path:
            problems.add(field, path, "a normalised path: no //, no . or .. segment")
        elif dialect == "apisix" and "*" in path[:-1]:
            problems.add(field, path, "* at the end of the path only")


def check_regex(problems: Problems, field: str, pattern: str) -> None:
    """Note a regular expression that the engine of requests would not take."""
    try:
        compile_regex(pattern.encode("utf-8", "surrogatepass").decode("latin-1"), field, pattern)
    except ConfigError as error:
        problems.add(field, pattern, error.allowed)


def is_host(value: str) -> bool:
    """Say whether `value` is a host name or an IP address (IPv6 with or without brackets), without a port."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return len(value) <= 253 and _NAME.fullmatch(value) is not None
    return True


def check_hosts(problems: Problems, field: str, value: list[Any], dialect: str) -> None:
    """Note what is no host pattern: a host or `*.suffix`; for APISIX also `*`, for Kong `prefix.*` and a port."""
    for host in check_strings(problems, field, value):
        if dialect == "apisix" and host == "*":
            continue
        name, port = host, ""
        if dialect == "kong" and (found := re.fullmatch(r"(.+):(\d{1,5})", host)) and host.count(":") == 1:
            name, port = found[1], found[2]
        bare = name.removeprefix("*.")
        if dialect == "kong" and bare == name:
            bare = name.removesuffix(".*")
        if not is_host(bare) or (port and not 0 < int(port) < 65536):
            also = ", prefix.*, each with a port if wanted" if dialect == "kong" else ""
            problems.add(field, host, f"a host name, an IP address or *.suffix{also}")


def check_addresses(problems: Problems, field: str, value: list[Any]) -> None:
    """Note what is neither an IP address nor a network in CIDR form."""
    for address in check_strings(problems, field, value):
        if not is_network(address):
            problems.add(field, address, "an IP address or a network such as 10.0.0.0/8")


def is_network(value: str) -> bool:
    """Say whether `value` is an IP address or a network in CIDR form."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def check_choices(problems: Problems, field: str, value: list[Any], allowed: Sequence[str]) -> None:
    """Note list items that are not among `allowed`."""
    for item in check_strings(problems, field, value):
        if item not in allowed:
            problems.add(field, item, "one of " + ", ".join(allowed))


def check_headers(problems: Problems, field: str, value: dict[str, Any]) -> None:
    """Note what is not a map of header names to lists of values."""
    for name, values in value.items():
        if not _HEADER.fullmatch(name):
            problems.add(field, name, "a header name")
        elif name.lower() == "host":
            problems.add(field, name, "any header but Host: use `hosts`")
        elif not isinstance(values, list) or not values or not all(isinstance(item, str) for item in values):
            problems.add(field, {name: values}, "a list of at least one string for each header")
        else:
            for item in values:
                if item.startswith("~*"):
                    check_regex(problems, field, item[2:])


def check_positive(problems: Problems, fields: Iterable[tuple[str, float | None]]) -> None:
    """Note numbers that are given and not greater than 0."""
    for field, value in fields:
        if value is not None and not 0 < value < math.inf:
            problems.add(field, value, "a number greater than 0 (seconds)")


#: The variables that a consistent hash may use (APISIX).
HASH_VARS: Final = (
    "^((uri|server_name|server_addr|request_uri|remote_port|remote_addr|query_string|host|hostname|mqtt_client_id)"
    "|arg_[0-9a-zA-z_-]+)$"
)
#: What of `tls` an upstream may have: all but `verify` are paths on the gateways' machines.
TLS_FILES: Final = ("ca_file", "client_cert_file", "client_key_file")


def hash_key_pattern(hash_on: str, key: str) -> str | None:
    """The regular expression that the key of an APISIX upstream of type chash fails, or None."""
    if hash_on not in ("", "vars", "header", "cookie"):
        return None
    pattern = "^[a-zA-Z0-9-_]+$" if hash_on in ("header", "cookie") else HASH_VARS
    return None if re.fullmatch(pattern, key) else pattern


def tls_problem(tls: Any) -> str | None:
    """Why the `tls` of an upstream is refused, or None. Private keys do not lie in the database."""
    if not isinstance(tls, dict):
        return "`tls`: allowed is a JSON object."
    for name in sorted(tls):
        if name in ("client_cert", "client_cert_id", "client_key"):
            return (
                f"`tls.{name}` is not supported: a private key does not belong into the database. Write "
                "`tls.client_cert_file` and `tls.client_key_file`, paths of PEM files that the gateway can read."
            )
        if name not in ("verify", *TLS_FILES):
            return f"`tls.{name}` is not supported: {', '.join(('verify', *TLS_FILES))} are."
    if not isinstance(tls.get("verify", True), bool):
        return "`tls.verify`: allowed is true or false."
    for name in TLS_FILES:
        if name in tls and (not isinstance(tls[name], str) or not tls[name].startswith("/") or "\0" in tls[name]):
            return f"`tls.{name}`: allowed is the absolute path of a PEM file."
    if ("client_cert_file" in tls) != ("client_key_file" in tls):
        return "`tls.client_cert_file` and `tls.client_key_file` belong together."
    return None
