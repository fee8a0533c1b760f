"""Files below one directory for the command's file mode: which file a path means, and whether it may be seen.

Called by `app`. Starlette's file response does the rest: ranges, conditional requests, validators. Imports starlette
and `hmac_gateway.core`.
"""

from __future__ import annotations

import asyncio
import html
import mimetypes
import os
import posixpath
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from hmac_gateway.core.dates import parse_http_date
from hmac_gateway.core.message import Message, split_target

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_INDEX: Final = b"index.html"
#: So much of a file of unknown type is looked at.
_SNIFFED: Final = 512
#: To go through a directory one need not be allowed to read it; not every system has a mode for that.
_FOLDER: Final = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
#: Without waiting for a writer, should it be a pipe by now.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK


class _Found(NamedTuple):
    """Something that is open: its path below the root, without links, and its descriptor."""

    below: bytes
    number: int
    stat: os.stat_result


class Files:
    """The files below `root`. Nothing whose name begins with a dot, and no symlink that leads out.

    `listing`: directories without an index.html are listed. `varies_on` is the header that decides who may read.
    """

    def __init__(self, root: str, listing: bool, varies_on: str) -> None:
        self._given = os.path.abspath(os.fsencode(root))
        self._listing = listing
        # No shared cache may give to others what was asked with a signature.
        self._headers = {"cache-control": "private", "vary": varies_on.lower()}
        self._static = StaticFiles(directory=root, check_dir=False)

    async def answer(self, message: Message, send: Send) -> bool:
        """Send what a request's path means; False where it means nothing, and nothing was sent. Raises OSError."""
        with ExitStack() as opened:
            found = await asyncio.to_thread(self._find, message, opened)
            if found is None:
                return False
            found.headers.update(self._headers)
            # What starlette reads of a scope; its own watch for a client that leaves is not needed here.
            scope = {
                "type": "http",
                "method": "HEAD" if message.method == "HEAD" else "GET",
                "headers": _raw(message),
                "asgi": {"version": "3.0", "spec_version": "2.4"},
            }
            await found(scope, _never, send)
        return True

    def _find(self, message: Message, opened: ExitStack) -> Response | None:
        """Blocking: looks at the disk. `opened` closes what was opened."""
        raw, query = split_target(message.target)
        asked = unquote_to_bytes(raw.encode("latin-1"))
        if not asked.startswith(b"/") or b"\x00" in asked:
            return None
        # Dots are resolved as in a browser, which never leads above the root.
        clean = posixpath.normpath(b"/" + asked.lstrip(b"/"))
        # Each time: the root may be a link that is set to another release while we run.
        root = os.path.realpath(self._given)
        found = self._open(root, clean, opened)
        if found is None:
            return None
        directory, slash = stat.S_ISDIR(found.stat.st_mode), asked.endswith(b"/")
        tail = f"?{query}" if query else ""
        if directory and not slash:
            return self._moved(quote(posixpath.basename(clean), safe="") + "/" + tail)
        if not directory and slash:
            return self._moved("../" + quote(posixpath.basename(clean), safe="") + tail)
        if not directory and posixpath.basename(clean) == _INDEX:
            return self._moved("./" + tail)
        if directory:
            index = self._open(root, posixpath.join(clean, _INDEX), opened)
            if index is None or not stat.S_ISREG(index.stat.st_mode):
                return self._list(root, clean, found) if self._listing else None
            found = index
        return self._file(message, found)

    def _open(self, root: bytes, clean: bytes, opened: ExitStack) -> _Found | None:
        """A clean path's file or directory, opened, as far as anybody may know of it."""
        below = _below(root, clean)
        if below is None:
            return None
        try:
            folder = os.open(root, _FOLDER)
            opened.callback(os.close, folder)
            # `below` has no links. Where one is met now, somebody put it there since, to be led out.
            *folders, name = below.split(b"/")
            for inner in folders:
                folder = os.open(inner, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                opened.callback(os.close, folder)
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return None  # a pipe or a device: reading might never end
            number = os.open(name, (_FOLDER if stat.S_ISDIR(mode) else _FILE) | os.O_NOFOLLOW, dir_fd=folder)
            opened.callback(os.close, number)
            return _Found(below, number, os.fstat(number))
        except OSError:  # also names that are too long
            return None

    def _file(self, message: Message, found: _Found) -> Response:
        # The file that was looked at, whatever has its name by now.
        path = f"/dev/fd/{found.number}"
        response = self._static.file_response(path, found.stat, {"type": "http", "headers": _raw(message)})
        if _is_another(message, response.headers["etag"], int(found.stat.st_mtime)):
            return Response(status_code=412)
        if isinstance(response, FileResponse):
            response.headers["content-type"] = response.media_type = _type(found)
        return response

    def _list(self, root: bytes, clean: bytes, found: _Found) -> Response | None:
        try:
            number = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=found.number)
        except OSError:
            return None
        try:
            listed = sorted(map(os.fsencode, os.listdir(number)))
        finally:
            os.close(number)
        names = []
        for name in listed:
            with ExitStack() as opened:
                entry = self._open(root, posixpath.join(clean, name), opened)
                if entry is not None:
                    names.append(name + (b"/" if stat.S_ISDIR(entry.stat.st_mode) else b""))
        # "./", so that a colon in a name makes no scheme of it.
        lines = [f'<a href="./{quote(name)}">{html.escape(name.decode("utf-8", "replace"))}</a>\n' for name in names]
        return HTMLResponse(f'<!doctype html>\n<meta charset="utf-8">\n<pre>\n{"".join(lines)}</pre>\n')

    def _moved(self, to: str) -> Response:
        # Relative: whoever stands in front may know this place by another address.
        response = RedirectResponse("", 301)
        response.headers["location"] = to
        return response


def _below(root: bytes, clean: bytes) -> bytes | None:
    """Where a clean path leads, from the root on and without links; None where that is hidden or outside."""
    path = os.path.realpath(os.path.join(root, clean.lstrip(b"/")))
    below = os.path.relpath(path, root)
    names = [*clean.split(b"/"), *([] if below == b"." else below.split(b"/"))]
    # Hidden, by its own name or by where it leads; a way out of the root begins with `..`.
    return None if any(name.startswith(b".") for name in names) else below


def _type(found: _Found) -> str:
    """A content type by extension; else text or bytes, by how the file begins."""
    # With a slash before it, since a name may look like `data:text/html,`.
    kind, coding = mimetypes.guess_type("/" + os.fsdecode(found.below))
    if coding is not None:
        # The file is what was packed, not what is in it.
        kind = "application/gzip" if coding == "gzip" else "application/octet-stream"
    if kind is None:
        begin = os.pread(found.number, _SNIFFED, 0)
        try:
            text = begin.decode()
        except UnicodeDecodeError as error:
            # A character may be cut at the end of what was read.
            text = "\x00" if error.start < len(begin) - 3 else begin[: error.start].decode()
        kind = "application/octet-stream" if "\x00" in text else "text/plain"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _is_another(message: Message, etag: str, modified: int) -> bool:
    """Whether a client wants a file only as it knows it, and it has changed (RFC 9110 13.2.2, its first two steps).

    Starlette does not look at these: who asks for the rest of a download would get that of another file.
    """
    if message.get("if-match") is not None:
        wanted = [tag.strip(" \t") for value in message.get_all("if-match") for tag in value.split(",")]
        return "*" not in wanted and etag not in wanted
    since = parse_http_date(message.get("if-unmodified-since") or "")
    return since is not None and modified > since


def _raw(message: Message) -> list[tuple[bytes, bytes]]:
    """The headers for starlette, which refuses a Range in units that must be ignored (RFC 9110 14.2)."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in message.headers
        if name != "range" or value.lower().startswith("bytes=")
    ]


async def _never() -> MutableMapping[str, Any]:
    """Who asks whether the client has left is told nothing: others watch."""
    never: asyncio.Future[MutableMapping[str, Any]] = asyncio.get_running_loop().create_future()
    return await never
