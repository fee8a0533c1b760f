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
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from hmac_gateway.core.message import Message, split_target

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_INDEX: Final = b"index.html"
#: So much of a file of unknown type is looked at.
_SNIFFED: Final = 512


class Files:
    """The files below `root`. Nothing whose name begins with a dot, and no symlink that leads out.

    `listing`: directories without an index.html are listed. `varies_on` is the header that decides who may read.
    """

    def __init__(self, root: str, listing: bool, varies_on: str) -> None:
        self._root = os.path.realpath(os.fsencode(root))
        self._listing = listing
        # No shared cache may give to others what was asked with a signature.
        self._headers = {"cache-control": "private", "vary": varies_on.lower()}
        self._static = StaticFiles(directory=root, check_dir=False)

    async def answer(self, message: Message, send: Send) -> bool:
        """Send what a request's path means; False where it means nothing, and nothing was sent. Raises OSError."""
        found = await asyncio.to_thread(self._find, message)
        if found is None:
            return False
        found.headers.update(self._headers)
        # What starlette reads of a scope; its own watch for a client that leaves is not needed here.
        scope = {
            "type": "http",
            "method": "HEAD" if message.method == "HEAD" else "GET",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers],
            "asgi": {"version": "3.0", "spec_version": "2.4"},
        }
        await found(scope, _never, send)
        return True

    def _find(self, message: Message) -> Response | None:
        """Blocking: looks at the disk."""
        raw, query = split_target(message.target)
        asked = unquote_to_bytes(raw.encode("latin-1"))
        # Dots are resolved as in a browser, which never leads above the root.
        clean = posixpath.normpath(b"/" + asked.lstrip(b"/"))
        real = self._real(clean)
        if real is None or not asked.startswith(b"/"):
            return None
        path, found = real
        directory, slash = stat.S_ISDIR(found.st_mode), asked.endswith(b"/")
        tail = f"?{query}" if query else ""
        if directory and not slash:
            return self._moved(quote(posixpath.basename(clean), safe="") + "/" + tail)
        if not directory and slash:
            return self._moved("../" + quote(posixpath.basename(clean), safe="") + tail)
        if not directory and posixpath.basename(clean) == _INDEX:
            return self._moved("./" + tail)
        if directory:
            index = self._real(posixpath.join(clean, _INDEX))
            if index is None or not stat.S_ISREG(index[1].st_mode):
                return self._list(clean, path) if self._listing else None
            path, found = index
        if not stat.S_ISREG(found.st_mode):
            return None  # a pipe or a device: reading might never end
        return self._file(message, path, found)

    def _real(self, clean: bytes) -> tuple[bytes, os.stat_result] | None:
        """Where a clean path leads and what is there, as far as anybody may know."""
        if b"\x00" in clean:
            return None
        path = os.path.realpath(os.path.join(self._root, clean.lstrip(b"/")))
        below = os.path.relpath(path, self._root)
        names = [*clean.split(b"/"), *([] if below == b"." else below.split(b"/"))]
        # Hidden, by its own name or by where it leads; a way out of the root begins with `..`.
        if any(name.startswith(b".") for name in names):
            return None
        try:
            found = os.stat(path)
            readable = os.access(path, os.R_OK)
        except OSError:  # also names that are too long
            return None
        return (path, found) if readable else None

    def _file(self, message: Message, path: bytes, found: os.stat_result) -> Response:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers]
        response = self._static.file_response(os.fsdecode(path), found, {"type": "http", "headers": headers})
        if isinstance(response, FileResponse):
            response.headers["content-type"] = response.media_type = _type(path)
        return response

    def _list(self, clean: bytes, path: bytes) -> Response:
        names = []
        for name in sorted(os.listdir(path)):
            real = self._real(posixpath.join(clean, name))
            if real is not None:
                names.append(name + (b"/" if stat.S_ISDIR(real[1].st_mode) else b""))
        # "./", so that a colon in a name makes no scheme of it.
        lines = [f'<a href="./{quote(name)}">{html.escape(name.decode("utf-8", "replace"))}</a>\n' for name in names]
        return HTMLResponse(f'<!doctype html>\n<meta charset="utf-8">\n<pre>\n{"".join(lines)}</pre>\n')

    def _moved(self, to: str) -> Response:
        # Relative: whoever stands in front may know this place by another address.
        response = RedirectResponse("", 301)
        response.headers["location"] = to
        return response


def _type(path: bytes) -> str:
    """A content type by extension; else text or bytes, by how the file begins."""
    kind, coding = mimetypes.guess_type(os.fsdecode(path))
    if coding is not None:
        # The file is what was packed, not what is in it.
        kind = "application/gzip" if coding == "gzip" else "application/octet-stream"
    if kind is None:
        with open(path, "rb") as file:
            begin = file.read(_SNIFFED)
        try:
            text = begin.decode()
        except UnicodeDecodeError as error:
            # A character may be cut at the end of what was read.
            text = "\x00" if error.start < len(begin) - 3 else begin[: error.start].decode()
        kind = "application/octet-stream" if "\x00" in text else "text/plain"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


async def _never() -> MutableMapping[str, Any]:
    """Who asks whether the client has left is told nothing: others watch."""
    never: asyncio.Future[MutableMapping[str, Any]] = asyncio.get_running_loop().create_future()
    return await never
