"""Reads one HTTP/1.1 response after another from bytes as they arrive, and judges them.

Base of both lanes' connections (`connection.Connection`, `sync_transport.SyncConnection`), so that an answer which one
lane refuses is refused by the other. No I/O. Imports the standard library, httptools and `.exchange`.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .exchange import UpstreamBroken

#: Bytes: more than this before a response head is complete, or in chunk extensions and trailers between two
#: pieces of body, is refused. llhttp itself sets no bound and would collect a header of any size.
MAX_HEAD = 64 * 1024
#: Interim (1xx) responses dropped before one final response.
MAX_INTERIM = 16


class ResponseReader:
    """What is known of the response being received. `begin` once per request, then `feed` until `_complete`.

    `_dirty` says that the connection must not be used again, `_keep_alive` that the response allows it.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_complete",
        "_dirty",
        "_head_bytes",
        "_head_done",
        "_headers",
        "_interim",
        "_keep_alive",
        "_method",
        "_parser",
        "_quiet",
        "_status",
        "_transfer_encoding",
        "_version",
    )

    # httptools looks these up for every parser; a class attribute is cheaper than a failing lookup.
    on_status = None
    on_chunk_header = None
    on_chunk_complete = None

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self._complete = False
        self._head_done = False
        self._head_bytes = 0
        self._dirty = False
        self._chunks: list[bytes] = []
        self._buffered = 0

    def begin(self, method: str) -> None:
        """Expect the response to a request; `method` tells how it is framed (HEAD has no body)."""
        self._parser = HttpResponseParser(self)
        self._method = method
        self._complete = False
        self._head_done = False
        self._keep_alive = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._transfer_encoding: bytes | None = None
        self._head_bytes = 0
        self._interim = 0
        self._quiet = 0

    def feed(self, data: bytes) -> UpstreamBroken | None:
        """Take in what arrived for a response that is not complete; what is wrong with it, or None."""
        if self._head_done:
            self._quiet += len(data)
        else:
            self._head_bytes += len(data)
        assert self._parser is not None  # since `begin`
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # After a whole message the error is about surplus bytes: the response stands.
            if not self._complete:
                return UpstreamBroken(str(error.__context__ or error))
            self._dirty = True
        if self._head_bytes > MAX_HEAD and self._oversized():
            self._head_done = False  # so that the head is not handed out
            return UpstreamBroken(f"response head over {MAX_HEAD} bytes")
        if self._head_done and self._quiet > MAX_HEAD:
            return UpstreamBroken(f"chunk extensions or trailers over {MAX_HEAD} bytes")
        return None

    def cut(self, error: Exception | None, reused: bool) -> UpstreamBroken | None:
        """The connection ended before the response was complete: what is wrong with that, or None.

        `error` is None for an orderly end (FIN). `reused`: the connection had served another request before.
        """
        if error is None and self._head_done and not self._delimited():
            self._complete = True  # the body lasted until the close (RFC 9112 6.3, rule 8)
            return None
        fresh = not self._head_bytes
        what = f"closed {'without a response' if fresh else 'inside the response'}"
        return UpstreamBroken(f"{what}: {error}" if error is not None else what, stale=fresh and reused, silent=fresh)

    # -- httptools callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer, or a second message
        name = name.lower()
        if name == b"transfer-encoding":
            # Several lines are one list (RFC 9110 5.3), and no list is what we accept.
            known = self._transfer_encoding
            self._transfer_encoding = value if known is None else known + b"," + value
        self._headers.append((name, value.rstrip()))  # llhttp leaves trailing blanks on (RFC 9112 5.1)

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._complete or parser is None:
            return
        status = parser.get_status_code()
        version = parser.get_http_version()
        if status < 200:
            self._interim += 1
            if status < 100:
                raise UpstreamBroken(f"response status {status}")
            if status == 101:
                raise UpstreamBroken("the upstream switched protocols unasked")
            if self._interim > MAX_INTERIM:
                raise UpstreamBroken(f"more than {MAX_INTERIM} interim responses")
            self._headers = []
            self._transfer_encoding = None
            return
        if version != "1.1" and version != "1.0":
            raise UpstreamBroken(f"response in HTTP/{version}")
        coding = self._transfer_encoding
        if coding is not None:
            # We sent no TE, so anything but chunked is a coding nobody would undo (RFC 9112 6.1, 7).
            if coding.strip().lower() != b"chunked":
                raise UpstreamBroken("unsupported transfer coding")
            if version == "1.0":
                self._dirty = True  # faulty framing (RFC 9112 6.1): read it, then close
        if self._method == "HEAD":
            # llhttp does not know the request. Reuse only if it, too, says at once that no body comes: a node
            # that sends a body here would answer the next request with it.
            self._complete = True
        elif self._method == "CONNECT" and status < 300:
            raise UpstreamBroken("the upstream opened a tunnel")
        self._status = status
        self._version = version
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._dirty = True
            return
        self._quiet = 0
        self._buffered += len(data)
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        if not self._head_done:
            return  # an interim response
        if self._complete and self._method != "HEAD":
            return  # a second message
        self._complete = True
        # llhttp answers this rightly only here.
        self._keep_alive = self._parser is not None and self._parser.should_keep_alive()

    # -- internals --------------------------------------------------------------------------------------

    def _oversized(self) -> bool:
        if not self._head_done:
            return True
        self._head_bytes = sum(len(name) + len(value) + 4 for name, value in self._headers)
        return self._head_bytes > MAX_HEAD

    def _delimited(self) -> bool:
        return any(name == b"content-length" or name == b"transfer-encoding" for name, _ in self._headers)

    def _take(self) -> bytes:
        """The body bytes that have arrived and were not taken yet."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        return data
