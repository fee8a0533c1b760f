"""proxy.hmacproxy.flags, options and command: what a command line may say, and the words where it may not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proxy.hmacproxy.command import main
from proxy.hmacproxy.flags import BadFlag
from proxy.hmacproxy.options import Invalid, Options, read

from ..support.certificates import Authority

#: What is right by itself.
RIGHT = ["-port", "8081", "-secret", "foobar", "-sign-header", "X-Signature", "-auth"]
NO_SECRET = ["-port", "8081", "-sign-header", "X-Signature", "-auth"]
SIGNING = RIGHT[:-1]


def options(*arguments: str, environment: dict[str, str] | None = None) -> Options:
    return read(arguments, environment or {})[0]


def complaints(*arguments: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(Invalid) as caught:
        read(arguments, environment or {})
    first, *rest = str(caught.value).split("\n  ")
    assert first == "Invalid options:"
    return rest


# --- flags ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["-port", "8081", "-secret", "foobar", "-sign-header", "X-Signature", "-auth"],
        ["--port", "8081", "--secret", "foobar", "--sign-header", "X-Signature", "--auth"],
        ["-port=8081", "--secret=foobar", "-sign-header=X-Signature", "-auth=true"],
        ["-port", "1", "-port", "8081", "-secret", "foobar", "-sign-header", "X-Signature", "-auth=T"],
    ],
)
def test_one_dash_or_two_with_a_blank_or_without(arguments: list[str]) -> None:
    found = options(*arguments)
    assert (found.port, found.secret.reveal(), found.sign_header, found.auth) == (8081, b"foobar", "X-Signature", True)
    assert (found.digest, found.headers, found.bind) == ("sha1", (), "127.0.0.1")
    assert "foobar" not in repr(found)


def test_what_follows_the_first_other_argument_is_not_read() -> None:
    """As the README prints it, the start line stands behind the command."""
    found, ignored = read([*RIGHT, "responding", "Accepted/Unauthorized", "-strict"], {})
    assert found.start_line == "port 8081: responding Accepted/Unauthorized for auth queries"
    assert ignored == ["responding", "Accepted/Unauthorized", "-strict"] and not found.strict
    assert read([*RIGHT, "--", "-strict"], {})[1] == ["-strict"]
    # Go takes what stands behind a flag for its value, whatever it is.
    assert options("-secret", "-auth", *RIGHT[:2], *RIGHT[4:]).secret.reveal() == b"-auth"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("-nosuch", "flag provided but not defined: -nosuch"),
        ("--nosuch=1", "flag provided but not defined: -nosuch"),
        ("---port", "bad flag syntax: ---port"),
        ("-=1", "bad flag syntax: -=1"),
        ("-port=abc", 'invalid value "abc" for flag -port: parse error'),
        ("-port=" + "9" * 5000, "parse error"),
        ("-auth=maybe", 'invalid boolean value "maybe" for -auth: parse error'),
        ("-digest", "flag needs an argument: -digest"),
    ],
)
def test_a_line_that_cannot_be_read(argument: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadFlag, match=None) as caught:
        options(argument)
    assert words in str(caught.value)
    assert main([argument]) == 2
    assert words in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-help"]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("Usage of hmacproxy:\n")
    assert "  -port int\n" in shown and "  -auth\n" in shown and "(default sha1)" in shown and "(default true)" in shown


def test_signed_headers_are_a_list_without_trimming() -> None:
    assert options(*RIGHT, "-headers", "Date, X-One,").headers == ("Date", " X-One", "")
    assert options(*RIGHT, "-headers=A", "-headers=B").headers == ("B",)
    assert options(*RIGHT, "-headers=").headers == ("",)


# --- the original's complaints ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SIGNING, ["neither -upstream, -file-root, nor -auth specified"]),
        ([*RIGHT, "-upstream=http://h", "-file-root=/"], ["both -upstream and -file-root specified"]),
        ([*SIGNING, "-file-root=/"], ["-auth must be specified with -file-root"]),
        (
            [*SIGNING, "-upstream=http://h", "-file-root=/"],
            ["both -upstream and -file-root specified", "-auth must be specified with -file-root"],
        ),
        ([*RIGHT, "-port=0"], ["port must be specified and greater than zero"]),
        ([*RIGHT, "-port=-1"], ["port must be specified and greater than zero"]),
        ([*RIGHT, "-digest=sha3"], ["unsupported digest: sha3"]),
        ([*RIGHT, "-digest=md4"], ["unsupported digest: md4"]),
        ([*RIGHT, "-digest=SHA1"], ["unsupported digest: SHA1"]),
        ([*RIGHT, "-secret="], ["no secret specified"]),
        ([*RIGHT, "-sign-header="], ["no signature header specified"]),
        ([*RIGHT, "-upstream=//h"], ["upstream scheme not specified"]),
        ([*RIGHT, "-upstream=ftp://h"], ["invalid upstream scheme: ftp"]),
        ([*RIGHT, "-upstream=http://"], ["upstream host not specified"]),
        ([*RIGHT, "-upstream=http:///"], ["upstream host not specified"]),
        ([*RIGHT, "-upstream=http://h/a?b=c"], ['upstream path must be "/", not /a?b=c']),
        # Go's URL.RequestURI puts in the slash, and keeps a bare question mark.
        ([*RIGHT, "-upstream=http://h?b=c"], ['upstream path must be "/", not /?b=c']),
        ([*RIGHT, "-upstream=http://h/?"], ['upstream path must be "/", not /?']),
        ([*RIGHT, "-upstream=http://h?"], ['upstream path must be "/", not /?']),
        (
            [*RIGHT, "-upstream=localhost:8081"],
            [
                "invalid upstream scheme: localhost",
                "upstream host not specified",
                'upstream path must be "/", not 8081',
            ],
        ),
        ([*RIGHT, "-file-root=/no/such"], ["file-root does not exist: /no/such"]),
        ([*RIGHT, "-file-root=/dev/null/x"], ["file-root does not exist: /dev/null/x"]),
        ([*RIGHT, "-file-root=/dev/null"], ["file-root is not a directory: /dev/null"]),
        (
            [*RIGHT, "-ssl-cert=/no/such"],
            ["ssl-cert and ssl-key must both be specified, or neither must be", "ssl-cert does not exist: /no/such"],
        ),
        (
            [*RIGHT, "-ssl-key=/dev"],
            ["ssl-cert and ssl-key must both be specified, or neither must be", "ssl-key is not a regular file: /dev"],
        ),
        (
            [*RIGHT, "-ssl-cert=/no/such", "-ssl-key=/dev/null"],
            ["ssl-cert does not exist: /no/such", "ssl-key is not a regular file: /dev/null"],
        ),
        (
            [],
            [
                "neither -upstream, -file-root, nor -auth specified",
                "port must be specified and greater than zero",
                "no secret specified",
                "no signature header specified",
            ],
        ),
    ],
    ids=lambda value: None if isinstance(value, list) and value and value[0].startswith("-") else str(value)[:40],
)
def test_complaints_in_the_originals_words(arguments: list[str], words: list[str]) -> None:
    assert complaints(*arguments) == words


def test_everything_wrong_at_once_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-file-root=/no/such", "-digest=x", "-upstream=ftp://h", "-ssl-cert=/no/such"]
    assert main(arguments) == 1
    assert capsys.readouterr() == (
        "",
        "Invalid options:\n"
        "  both -upstream and -file-root specified\n"
        "  -auth must be specified with -file-root\n"
        "  port must be specified and greater than zero\n"
        "  unsupported digest: x\n"
        "  no secret specified\n"
        "  no signature header specified\n"
        "  invalid upstream scheme: ftp\n"
        "  file-root does not exist: /no/such\n"
        "  ssl-cert and ssl-key must both be specified, or neither must be\n"
        "  ssl-cert does not exist: /no/such\n",
    )


# --- ours ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*RIGHT, "-port=65536"], ["port must be at most 65535"]),
        ([*RIGHT, "-sign-header=X Signature"], ["not a header's name: X Signature"]),
        ([*RIGHT, "-sign-header=Host"], ["sign-header cannot be Host, which has a meaning of its own"]),
        ([*RIGHT, "-sign-header=content-length"], ["sign-header cannot be content-length"]),
        ([*RIGHT, "-sign-header=Connection"], ["sign-header cannot be Connection"]),
        ([*RIGHT, "-headers=Date,x-signature"], ["sign-header cannot be among -headers"]),
        ([*RIGHT, "-bind=here"], ["bind must be an IP address, not here"]),
        ([*SIGNING, "-upstream=http://h", "-strict"], ["-strict goes with -auth"]),
        ([*SIGNING, "-upstream=http://h", "-any-digest"], ["-any-digest goes with -auth"]),
        ([*RIGHT, "-max-skew=60"], ["-max-skew needs Date among -headers: an unsigned one proves nothing"]),
        ([*RIGHT, "-max-skew=-1", "-headers=Date"], ["max-skew must not be negative"]),
        ([*RIGHT, "-add-date", "-headers=date"], ["-add-date goes without -auth"]),
        ([*SIGNING, "-upstream=http://h", "-add-date"], ["-add-date needs Date among -headers"]),
        ([*RIGHT, "-max-body=-1"], ["max-body must not be negative"]),
        ([*RIGHT, "-listing"], ["-listing goes with -file-root"]),
        ([*RIGHT, "-trusted-proxies=10.0.0.0/8,x"], ["trusted-proxies must be addresses and networks, not x"]),
        ([*RIGHT, "-upstream=http://u:p@h"], ["upstream must not hold a user name or a password"]),
        ([*RIGHT, "-upstream=http://h:0"], ["upstream port must be greater than zero"]),
        ([*RIGHT, "-upstream=http://h:x"], ["upstream URL failed to parse: "]),
        ([*RIGHT, "-upstream=http://[::1"], ["upstream URL failed to parse: Invalid IPv6 URL"]),
        ([*RIGHT, "-upstream=http://a b"], ["upstream URL failed to parse: a blank or a control character"]),
        ([*RIGHT, "-upstream=http://a\nb"], ["upstream URL failed to parse: a blank or a control character"]),
        ([*RIGHT, "-upstream=http://h%2f"], ["upstream URL failed to parse: not a host's name: h%2f"]),
        ([*RIGHT, "-upstream=http://h\\g"], ["upstream URL failed to parse: not a host's name: h\\g"]),
        ([*RIGHT, "-secret-file=/dev/null"], ["both -secret and -secret-file specified", "is not a regular file"]),
        ([*NO_SECRET, "-secret-file=/no/such"], ["secret-file does not exist: /no/such"]),
    ],
    ids=lambda value: None if value and value[0].startswith("-p") else str(value)[:40],
)
def test_complaints_of_ours(arguments: list[str], words: list[str]) -> None:
    found = complaints(*arguments)
    assert len(found) == len(words)
    for text, part in zip(found, words, strict=True):
        assert part in text


@contextmanager
def unprivileged() -> Iterator[None]:
    """Nobody's rights: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_what_may_not_be_read() -> None:
    # Not in pytest's own folder, which is root's alone.
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cert, key = Authority(Path(folder)).issue("localhost")
        closed = Path(folder, "closed")
        closed.mkdir()
        os.chmod(key, 0)
        os.chmod(closed, 0)
        with unprivileged():
            assert complaints(*RIGHT, f"-ssl-cert={cert}", f"-ssl-key={key}") == [
                f"ssl-key permission is denied: {key}"
            ]
            for path in (closed, closed / "x"):
                assert complaints(*RIGHT, f"-file-root={path}") == [f"file-root permission is denied: {path}"]
            assert complaints(*NO_SECRET, f"-secret-file={key}") == [f"secret-file permission is denied: {key}"]
        os.chmod(closed, 0o755)


def test_what_is_allowed_and_hardly_meant() -> None:
    given = "-headers=Date, X-One,Host,,Connection,X-Forwarded-For"
    assert options(*RIGHT, given).notes == [
        "-headers: no header is named ' X-One'; an empty line is signed for it",
        "-headers: Host cannot be signed; an empty line is signed for it",
    ]
    assert [note.split(" ")[1] for note in options(*SIGNING, "-upstream=http://h", given).notes[2:]] == [
        "Connection",
        "X-Forwarded-For",
    ]
    assert options(*RIGHT, "-headers=").notes == []


def test_certificates_that_do_not_fit(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (cert, key), (_, other) = authority.issue("localhost"), authority.issue("127.0.0.1")
    assert options(*RIGHT, f"-ssl-cert={cert}", f"-ssl-key={key}").ssl_key == key
    (message,) = complaints(*RIGHT, f"-ssl-cert={cert}", f"-ssl-key={other}")
    assert message.startswith("ssl-cert and ssl-key cannot be used: ")


def test_the_secret_comes_from_a_flag_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content, secret in ((b"a b\n", b"a b"), (b"\xff\r\n", b"\xff"), (b"two\n\n", b"two\n")):
        file.write_bytes(content)
        assert options(*NO_SECRET, f"-secret-file={file}").secret.reveal() == secret
    file.write_bytes(b"x" * 1024 * 1024 + b"\n")
    assert complaints(*NO_SECRET, f"-secret-file={file}") == [f"secret-file is larger than 1048576 bytes: {file}"]
    file.write_bytes(b"\n")
    assert complaints(*NO_SECRET, f"-secret-file={file}") == [f"secret-file is empty: {file}"]
    environment = {"HMACPROXY_SECRET": "kept"}
    assert options(*NO_SECRET, environment=environment).secret.reveal() == b"kept"
    assert options(*RIGHT, environment=environment).secret.reveal() == b"foobar"
    # What a shell hands over is bytes.
    assert options(*NO_SECRET, "-secret", os.fsdecode(b"\xff")).secret.reveal() == b"\xff"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*SIGNING, "-upstream", "http://localhost:1/"], "proxying signed requests to: http://localhost:1/"),
        ([*RIGHT, "-upstream", "https://h"], "proxying authenticated requests to: https://h"),
        ([*RIGHT, "-file-root", "/"], "serving files from / for authenticated requests"),
        (RIGHT, "responding Accepted/Unauthorized for auth queries"),
    ],
)
def test_start_lines(arguments: list[str], line: str) -> None:
    assert options(*arguments).start_line == f"port 8081: {line}"


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([*RIGHT, f"-port={port}"]) == 1
    assert capsys.readouterr().err == f"listen tcp 127.0.0.1:{port}: bind: address already in use\n"
