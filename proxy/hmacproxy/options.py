"""What the command is told: flags and environment, checked as a whole before anything listens.

Called by `command`. Complaints come in the original's order and words; where it has none, because it does not look or
crashes, or because the option is ours, they are ours and come last. Imports `flags` and
`hmac_gateway`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from hmac_gateway.adapters.auth_request import speakers
from hmac_gateway.certificates import pair_problem
from hmac_gateway.core.credential import Secret
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.plugins.sign_request import UNSIGNABLE
from hmac_gateway.schemes.hmacproxy import TAKEN, UNSEEN, available

from .flags import Flag, Value, parse

#: Environment variable with the secret, where no flag gives it.
SECRET: Final = "HMACPROXY_SECRET"
DEFAULT_MAX_BODY: Final = 64 * 1024 * 1024

FLAGS: Final[Mapping[str, Flag]] = {
    "port": Flag(0, "port on which to listen"),
    "auth": Flag(False, "authenticate requests rather than signing them"),
    "digest": Flag("sha1", "digest of the signature: " + ", ".join(available())),
    "secret": Flag("", f"secret key; others on this machine can read it here: see -secret-file and {SECRET}"),
    "sign-header": Flag("", "header that holds the signature"),
    "headers": Flag("", "headers that are signed, in order, separated by commas", "list"),
    "upstream": Flag("", "server to which requests are proxied", "URL"),
    "file-root": Flag("", "directory from which files are served", "directory"),
    "ssl-cert": Flag("", "certificate for TLS", "file"),
    "ssl-key": Flag("", "private key for TLS", "file"),
    # Ours.
    "secret-file": Flag("", "file with the secret key; one line end at its end does not count", "file"),
    "bind": Flag("127.0.0.1", "address on which to listen; 0.0.0.0 for all", "address"),
    "strict": Flag(False, "with -auth: refuse targets whose signature could be that of another request"),
    "any-digest": Flag(False, "with -auth: accept signatures with any digest, as the original does"),
    "max-skew": Flag(0, "with -auth: seconds by which a signed Date may be off"),
    "add-date": Flag(False, "without -auth: give a Date to requests that have none; Date must be among -headers"),
    "max-body": Flag(DEFAULT_MAX_BODY, "bytes of a body that is kept until its signature is known; 0 for no limit"),
    "listing": Flag(False, "with -file-root: list directories that have no index.html"),
    "trusted-proxies": Flag("", "beside loopback: networks whose X-Original-URI is believed", "list"),
    "access-log": Flag(True, "write a line for each request"),
}

#: RFC 9110 5.6.2.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: RFC 3986 3.2.2, less what is percent-encoded: no name server knows such names.
_HOST: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=\x80-\U0010ffff-]+|[0-9A-Fa-f:.]+")
_LARGEST_SECRET: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """Options that were found right. `upstream` is as typed, `url` its parts; `max_skew` 0: age is no matter."""

    port: int
    auth: bool
    digest: str
    secret: Secret
    sign_header: str
    headers: tuple[str, ...]
    upstream: str
    url: SplitResult
    file_root: str
    ssl_cert: str
    ssl_key: str
    bind: str
    strict: bool
    any_digest: bool
    max_skew: int
    add_date: bool
    max_body: int
    listing: bool
    trusted: Callable[[str], bool]
    access_log: bool

    @property
    def start_line(self) -> str:
        """What is said when the server is up."""
        if not self.auth:
            what = f"proxying signed requests to: {self.upstream}"
        elif self.upstream:
            what = f"proxying authenticated requests to: {self.upstream}"
        elif self.file_root:
            what = f"serving files from {self.file_root} for authenticated requests"
        else:
            what = "responding Accepted/Unauthorized for auth queries"
        return f"port {self.port}: {what}"

    @property
    def notes(self) -> list[str]:
        """What is allowed, as in the original, and yet hardly what was meant."""
        notes = []
        for name in self.headers:
            if name and not _TOKEN.fullmatch(name):
                notes.append(f"-headers: no header is named {name!r}; an empty line is signed for it")
            elif name.lower() in UNSEEN:
                notes.append(f"-headers: {name} cannot be signed; an empty line is signed for it")
            elif self.upstream and (name.lower() in UNSIGNABLE or name.lower() == "x-forwarded-for"):
                notes.append(f"-headers: {name} does not reach the upstream as it was signed")
        return notes


class Invalid(Exception):
    """Options that do not go together. `messages` are all of them."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("\n  ".join(["Invalid options:", *messages]))


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Options, list[str]]:
    """(options, arguments that were ignored). Raises what `flags.parse` does, and Invalid."""
    given, ignored = parse(arguments, FLAGS)
    values: dict[str, Any] = {name: flag.default for name, flag in FLAGS.items()} | given
    complaints: list[str] = []
    complain = complaints.append
    auth, upstream, file_root = values["auth"], values["upstream"], values["file-root"]
    if not (upstream or file_root or auth):
        complain("neither -upstream, -file-root, nor -auth specified")
    elif upstream and file_root:
        complain("both -upstream and -file-root specified")
    if file_root and not auth:
        complain("-auth must be specified with -file-root")
    if values["port"] < 1:
        complain("port must be specified and greater than zero")
    if values["digest"] not in available():
        complain(f"unsupported digest: {values['digest']}")
    own: list[str] = []
    secret = _secret(given, environment, own.append)
    if not secret and not own:
        complain("no secret specified")
    if not values["sign-header"]:
        complain("no signature header specified")
    url = _upstream(upstream, complain)
    if file_root:
        _stat("file-root", file_root, stat.S_ISDIR, "a directory", complain)
    _tls(values["ssl-cert"], values["ssl-key"], complain)
    complaints += own
    trusted = _own(values, complain)
    if complaints:
        raise Invalid(complaints)
    options = Options(
        headers=tuple(values["headers"].split(",")) if "headers" in given else (),
        secret=Secret(secret),
        url=url,
        trusted=trusted,
        bind="127.0.0.1" if values["bind"] == "localhost" else values["bind"].strip("[]"),
        **{
            name.replace("-", "_"): values[name]
            for name in FLAGS
            if name not in ("headers", "secret", "secret-file", "bind", "trusted-proxies")
        },
    )
    return options, ignored


def _secret(given: Mapping[str, Value], environment: Mapping[str, str], complain: Callable[[str], None]) -> bytes:
    """The key's bytes, which Go takes from the command line as they are."""
    if "secret" in given and "secret-file" in given:
        complain("both -secret and -secret-file specified")
    if "secret-file" not in given:
        return os.fsencode(str(given.get("secret", environment.get(SECRET, ""))))
    path = str(given["secret-file"])
    if not _stat("secret-file", path, stat.S_ISREG, "a regular file", complain):
        return b""
    try:
        with open(path, "rb") as file:
            secret = file.read(_LARGEST_SECRET + 1)
    except OSError as error:
        complain(_unusable("secret-file", path, error))
        return b""
    if len(secret) > _LARGEST_SECRET:
        complain(f"secret-file is larger than {_LARGEST_SECRET} bytes: {path}")
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        complain(f"secret-file is empty: {path}")
    return secret


def _upstream(text: str, complain: Callable[[str], None]) -> SplitResult:
    if not text:
        return urlsplit("")
    try:
        # What urlsplit would take away without a word.
        if any(character <= " " or character == "\x7f" for character in text):
            raise ValueError("a blank or a control character")
        url = urlsplit(text)
        port = url.port
        if url.hostname and not _HOST.fullmatch(url.hostname):
            raise ValueError(f"not a host's name: {url.hostname}")
    except ValueError as error:
        complain(f"upstream URL failed to parse: {error}")
        return urlsplit("")
    if not url.scheme:
        complain("upstream scheme not specified")
    elif url.scheme not in ("http", "https"):
        complain(f"invalid upstream scheme: {url.scheme}")
    if not url.hostname:
        complain("upstream host not specified")
    tail = url._replace(scheme="", netloc="").geturl()
    if "?" in text.partition("#")[0]:  # Go puts in the slash, and urlsplit does not tell a bare question mark
        tail = f"{url.path or '/'}?{url.query}"
    if tail not in ("", "/"):
        complain(f'upstream path must be "/", not {tail}')
    if url.username is not None:
        complain("upstream must not hold a user name or a password")
    elif port == 0:
        complain("upstream port must be greater than zero")
    return url


def _tls(cert: str, key: str, complain: Callable[[str], None]) -> None:
    if bool(cert) != bool(key):
        complain("ssl-cert and ssl-key must both be specified, or neither must be")
    found = [
        _stat(name, path, stat.S_ISREG, "a regular file", complain)
        for name, path in (("ssl-cert", cert), ("ssl-key", key))
        if path
    ]
    if found == [True, True] and (why := pair_problem(cert, key)):
        complain(f"ssl-cert and ssl-key cannot be used: {why}")


def _stat(name: str, path: str, right: Callable[[int], bool], what: str, complain: Callable[[str], None]) -> bool:
    """Whether a path is there, what it must be, and readable."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        complain(_unusable(name, path, error))
        return False
    if not right(mode):
        complain(f"{name} is not {what}: {path}")
        return False
    if not os.access(path, os.R_OK):
        complain(f"{name} permission is denied: {path}")
        return False
    return True


def _unusable(name: str, path: str, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"{name} does not exist: {path}"
    if number in (errno.EACCES, errno.EPERM):
        return f"{name} permission is denied: {path}"
    return f"{name} cannot be used: {path}: {os.strerror(number) if number else error}"


def _own(values: Mapping[str, Any], complain: Callable[[str], None]) -> Callable[[str], bool]:
    """What the original does not look at, and options that it does not have; who may send X-Original-URI."""
    if values["port"] > 65535:
        complain("port must be at most 65535")
    if values["sign-header"] and not _TOKEN.fullmatch(values["sign-header"]):
        complain(f"not a header's name: {values['sign-header']}")
    elif values["sign-header"].lower() in TAKEN:
        complain(f"sign-header cannot be {values['sign-header']}, which has a meaning of its own")
    elif values["sign-header"] and values["sign-header"].lower() in values["headers"].lower().split(","):
        complain("sign-header cannot be among -headers: a signature does not cover itself")
    if values["bind"] != "localhost":
        try:
            ipaddress.ip_address(values["bind"].strip("[]"))
        except ValueError:
            complain(f"bind must be an IP address, not {values['bind']}")
    for name in ("strict", "any-digest", "max-skew"):
        if values[name] and not values["auth"]:
            complain(f"-{name} goes with -auth")
    if values["add-date"] and values["auth"]:
        complain("-add-date goes without -auth")
    if values["max-skew"] < 0:
        complain("max-skew must not be negative")
    for name in ("max-skew", "add-date"):
        if values[name] and "date" not in values["headers"].lower().split(","):
            complain(f"-{name} needs Date among -headers: an unsigned one proves nothing")
    if values["max-body"] < 0:
        complain("max-body must not be negative")
    if values["listing"] and not values["file-root"]:
        complain("-listing goes with -file-root")
    try:
        return speakers(network for network in values["trusted-proxies"].split(",") if network)
    except ConfigError as error:
        complain(f"trusted-proxies must be addresses and networks, not {error.given}")
        return speakers(())
