"""The command's file mode: what may be read, by whom, and in which parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from hmac_gateway.core.message import Message
from proxy.hmacproxy.files import Files
from tests.support.hmacproxied import REFUSAL, Hmacproxy, sign
from tests.support.proxied import wait_for
from tests.support.raw_client import Headers, RawAnswer

#: Larger than what is sent at once.
LARGE = os.urandom(300_000)


class Site:
    """A directory that is served, with things beside it that are not."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.root = folder / "root"
        (self.root / "sub" / "deep").mkdir(parents=True)
        (self.root / "empty").mkdir()
        (folder / "outside").mkdir()
        (folder / "root-too").mkdir()
        for path, content in {
            "root/a.txt": b"hello",
            "root/large.bin": LARGE,
            "root/page.html": b"<p>",
            "root/notes": b"caf\xc3\xa9\n",
            "root/blob": b"\x00\xff\x01",
            "root/pack.tar.gz": b"\x1f\x8b",
            "root/none": b"",
            "root/b c&d.txt": b"blank",
            "root/a:b": b"colon",
            "root/sub/index.html": b"index",
            "root/sub/deep/x": b"x",
            "root/.hidden": b"hidden",
            "outside/secret": b"secret",
            "root-too/secret": b"secret",
        }.items():
            (folder / path).write_bytes(content)
        (self.root / ".git").mkdir()
        (self.root / ".git" / "config").write_bytes(b"hidden")
        (self.root / "inside").symlink_to("a.txt")
        (self.root / "leads-out").symlink_to("../outside/secret")
        (self.root / "folder-out").symlink_to(folder / "outside")
        (self.root / "beside").symlink_to("../root-too/secret")
        (self.root / "to-hidden").symlink_to(".hidden")
        (self.root / "loop").symlink_to("loop")
        os.mkfifo(self.root / "pipe")
        self.proxy = Hmacproxy("-auth", "-file-root", str(self.root), *arguments)

    def get(self, target: str, headers: Headers = (), method: str = "GET") -> RawAnswer:
        """A signed request."""
        path, _, query = target.partition("?")
        string = f"{method}\n{unquote_to_bytes(path).decode('latin-1')}{f'?{query}' if query else ''}\n"
        return self.proxy.ask(method, target, [*headers, sign(string)])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    with made.proxy:
        yield made


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("listed"), "-listing")
    with made.proxy:
        yield made


def missing(answer: RawAnswer) -> bool:
    if answer.status == 404:
        assert answer.body == b"404 page not found\n" and answer.get("content-type") == "text/plain; charset=utf-8"
    return answer.status == 404


def test_who_signs_reads(site: Site) -> None:
    answer = site.get("/a.txt")
    assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
    assert answer.get("content-type") == "text/plain; charset=utf-8" and answer.get("content-length") == "5"
    assert (answer.get("cache-control"), answer.get("vary")) == ("private", "x-signature")
    assert site.get("/large.bin").body == LARGE
    assert site.get("/none").body == b"" and site.get("/none").status == 200
    assert site.get("/a.txt?x=1").body == b"hello"
    assert site.get("/b%20c%26d.txt").body == b"blank"
    head = site.get("/a.txt", method="HEAD")
    assert (head.status, head.body, head.get("content-length")) == (200, b"", "5")


@pytest.mark.parametrize("target", ["/a.txt", "/nothing", "/sub", "/.hidden", "/folder-out/secret", "/"])
def test_nobody_else_learns_what_is_there(site: Site, target: str) -> None:
    for headers in ([], [sign(f"GET\n{target}\n", secret="other")]):
        answer = site.proxy.ask("GET", target, headers)
        assert (answer.status, answer.body) == (401, REFUSAL)


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/a.txt/x",
        "/.hidden",
        "/%2ehidden",
        "/.git/config",
        "/sub/../.git/config",
        "/leads-out",
        "/folder-out/secret",
        "/folder-out/",
        "/beside",
        "/to-hidden",
        "/loop",
        "/pipe",
        "/../outside/secret",
        "/..%2foutside%2fsecret",
        "/%2e%2e/outside/secret",
        "/%252e%252e/outside/secret",
        "/sub/..%2f..%2foutside/secret",
        "/..\\outside\\secret",
        "/..%5coutside%5csecret",
        "//outside/secret",
        "/../root-too/secret",
        "/a.txt%00.html",
        "/a.txt%00",
        "/" + "x" * 300,
        "/" + "x/" * 3000,
        "/empty/",
        "/%ff",
    ],
    ids=lambda target: target[:40],
)
def test_nothing_that_is_hidden_or_outside(site: Site, target: str) -> None:
    answer = site.get(target)
    assert missing(answer), (answer.status, answer.body)


def test_dots_are_resolved_and_links_inside_are_followed(site: Site) -> None:
    for target in ("/sub/../a.txt", "/./a.txt", "/sub/%2e%2e/a.txt", "//a.txt", "/../a.txt", "/inside"):
        assert site.get(target).body == b"hello", target


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "sub/"),
        ("/sub/deep?q=1", "deep/?q=1"),
        ("/sub/index.html", "./"),
        ("/a.txt/", "../a.txt"),
        ("/a:b/", "../a%3Ab"),
        ("//sub", "sub/"),
    ],
)
def test_one_address_for_each_place(site: Site, target: str, location: str) -> None:
    answer = site.get(target)
    assert (answer.status, answer.get("location")) == (301, location)


def test_directories(site: Site, listed: Site) -> None:
    index = site.get("/sub/")
    assert (index.body, index.get("content-type")) == (b"index", "text/html; charset=utf-8")
    assert missing(site.get("/")) and missing(site.get("/sub/deep/"))
    assert listed.get("/sub/").body == b"index"
    page = listed.get("/")
    assert page.status == 200 and page.get("content-type") == "text/html; charset=utf-8"
    text = page.body.decode()
    names = ["a.txt", "a:b", "blob", "empty/", "inside", "large.bin", "none", "notes", "pack.tar.gz", "page.html"]
    for name in (*names, "sub/"):
        assert f">{name}</a>" in text, name
    assert '<a href="./a%3Ab">a:b</a>' in text and '<a href="./b%20c%26d.txt">b c&amp;d.txt</a>' in text
    for name in ("hidden", "git", "leads-out", "folder-out", "beside", "loop"):
        assert name not in text, name
    assert "x" in listed.get("/sub/deep/").body.decode()
    assert listed.proxy.ask("GET", "/").status == 401


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("notes", "text/plain; charset=utf-8"),
        ("blob", "application/octet-stream"),
        ("pack.tar.gz", "application/gzip"),
        ("none", "text/plain; charset=utf-8"),
    ],
)
def test_types_by_extension_or_by_how_a_file_begins(site: Site, name: str, kind: str) -> None:
    assert site.get(f"/{name}").get("content-type") == kind


@pytest.mark.parametrize(
    ("ranges", "status", "content_range", "body"),
    [
        ("bytes=0-0", 206, "bytes 0-0/5", b"h"),
        ("bytes=1-3", 206, "bytes 1-3/5", b"ell"),
        ("bytes=3-", 206, "bytes 3-4/5", b"lo"),
        ("bytes=-2", 206, "bytes 3-4/5", b"lo"),
        ("bytes=2-99", 206, "bytes 2-4/5", b"llo"),
        ("bytes=9-", 416, "bytes */5", None),
    ],
)
def test_ranges(site: Site, ranges: str, status: int, content_range: str, body: bytes | None) -> None:
    answer = site.get("/a.txt", [("Range", ranges)])
    assert (answer.status, answer.get("content-range")) == (status, content_range)
    assert body is None or answer.body == body


@pytest.mark.parametrize("ranges", ["items=0-1", "lines", "byte=0-1", "BYTES=0-0"])
def test_units_that_nobody_knows_are_ignored(site: Site, ranges: str) -> None:
    """RFC 9110 14.2; names of units are case-insensitive (14.1)."""
    assert site.get("/a.txt", [("Range", ranges)]).status == (206 if ranges.startswith("BYTES") else 200)


def test_several_ranges_and_one_of_what_has_changed(site: Site) -> None:
    several = site.get("/large.bin", [("Range", "bytes=0-9,299990-")])
    assert several.status == 206 and str(several.get("content-type")).startswith("multipart/byteranges")
    assert LARGE[:10] in several.body and LARGE[-10:] in several.body
    etag = str(site.get("/a.txt").get("etag"))
    for condition, status in ((etag, 206), ('"other"', 200)):
        assert site.get("/a.txt", [("Range", "bytes=0-0"), ("If-Range", condition)]).status == status


def test_what_the_client_has_is_not_sent_again(site: Site) -> None:
    first = site.get("/a.txt")
    etag, modified = str(first.get("etag")), str(first.get("last-modified"))
    for condition in (("If-None-Match", etag), ("If-None-Match", f'"x", {etag}'), ("If-Modified-Since", modified)):
        answer = site.get("/a.txt", [condition])
        assert (answer.status, answer.body, answer.get("etag")) == (304, b"", etag)
        assert answer.get("vary") == "x-signature"
    for condition in (("If-None-Match", '"x"'), ("If-Modified-Since", "Mon, 05 Oct 2015 15:32:56 GMT")):
        assert site.get("/a.txt", [condition]).status == 200
    # Without a signature even that is nobody's business.
    assert site.proxy.ask("GET", "/a.txt", [("If-None-Match", etag)]).status == 401


def test_what_has_changed_is_not_sent_to_who_wants_it_as_it_was(site: Site) -> None:
    first = site.get("/a.txt")
    etag, modified = str(first.get("etag")), str(first.get("last-modified"))
    early, late = "Mon, 05 Oct 2015 15:32:56 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"
    rest = ("Range", "bytes=3-")
    for conditions, status in (
        ([("If-Match", etag), rest], 206),
        ([("If-Match", f'"x",{etag}')], 200),
        ([("If-Match", "*")], 200),
        ([("If-Match", '"x"'), rest], 412),
        ([("If-Match", f"W/{etag}")], 412),  # compared strongly
        ([("If-Match", "")], 412),
        ([("If-Unmodified-Since", modified), rest], 206),
        ([("If-Unmodified-Since", late)], 200),
        ([("If-Unmodified-Since", early), rest], 412),
        ([("If-Unmodified-Since", "no date")], 200),
        ([("If-Match", etag), ("If-Unmodified-Since", early)], 200),
        ([("If-Match", '"x"'), ("If-None-Match", etag)], 412),
    ):
        answer = site.get("/a.txt", conditions)
        assert answer.status == status, conditions
        assert status != 412 or answer.body == b""
    assert site.get("/none.txt", [("If-Match", '"x"')]).status == 404


def test_a_file_that_grows_or_goes_is_no_error_of_the_server(site: Site) -> None:
    new = site.root / "new"
    new.write_bytes(b"one")
    assert site.get("/new").body == b"one"
    new.write_bytes(b"three")
    assert site.get("/new").body == b"three"
    new.unlink()
    assert missing(site.get("/new"))


def test_a_link_that_is_put_in_a_files_place_meanwhile(tmp_path: Path) -> None:
    """Looked at as a file, and read as a link that leads out: whoever may write there must not read elsewhere."""
    root, secret = tmp_path / "root", tmp_path / "outside"
    for folder, content in ((root / "sub", b"public"), (secret, b"secret")):
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(content)
    files, ended = Files(str(root), False, "x"), Event()

    def swap() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            os.rename(root / "sub", root / f"kept-{number}")
            os.symlink(secret, root / "sub")
            os.unlink(root / "sub")
            os.rename(root / f"kept-{number}", root / "sub")
            os.rename(root / "sub" / "f", root / "sub" / "kept")
            os.symlink(secret / "f", root / "sub" / "f")
            os.rename(root / "sub" / "kept", root / "sub" / "f")

    swapper = Thread(target=swap)
    swapper.start()
    try:
        bodies = {asyncio.run(read_here(files, "/sub/f")) for _ in range(1500)}
    finally:
        ended.set()
        swapper.join()
    assert b"public" in bodies and bodies <= {b"public", None}


async def read_here(files: Files, target: str) -> bytes | None:
    """What is given out without a server; None for what is not there."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    try:
        found = await files.answer(Message("GET", target, []), send)
    except OSError:
        return None
    return b"".join(event.get("body", b"") for event in sent) if found else None


def test_a_root_that_is_a_link_may_be_set_to_another_release(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "f").write_text(release)
    (tmp_path / "now").symlink_to("one")
    with Hmacproxy("-auth", "-file-root", str(tmp_path / "now")) as proxy:
        assert proxy.ask("GET", "/f", [sign("GET\n/f\n")]).body == b"one"
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "now")
        assert proxy.ask("GET", "/f", [sign("GET\n/f\n")]).body == b"two"
        assert proxy.process is not None
        before = len(os.listdir(f"/proc/{proxy.process.pid}/fd"))
        for headers in ([], [("Range", "bytes=0-0,2-2")], [("Range", "bytes=9-")], [("If-None-Match", "*")]):
            for method in ("GET", "HEAD"):
                proxy.ask(method, "/f", [*headers, sign(f"{method}\n/f\n")])
        # What was opened is closed; connections take a moment.
        descriptors = f"/proc/{proxy.process.pid}/fd"
        wait_for(lambda: len(os.listdir(descriptors)) <= before + 1)


def test_any_method_reads_as_in_the_original(site: Site) -> None:
    body = b"ignored"
    answer = site.proxy.ask("POST", "/a.txt", [sign("POST\n/a.txt\n", body)], body)
    assert (answer.status, answer.body) == (200, b"hello")
