"""A request body that must be seen whole before it goes on: memory first, then a temporary file.

Used by the gateway lane where a digest must be right before the upstream gets a byte. Imports `hmac_gateway.core`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from hmac_gateway.core.identity import BodyDigest

_PIECE = 256 * 1024


class Spool:
    """Takes chunks, feeds the digests, gives the body back. A context manager: the file goes at its end."""

    __slots__ = ("_digests", "_file", "size")

    def __init__(self, digests: list[BodyDigest], in_memory: int) -> None:
        self._digests = digests
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory, prefix="hmac-gateway-")  # noqa: SIM115
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self.size += len(chunk)
        for digest in self._digests:
            digest.feed(chunk)
        self._file.write(chunk)

    def pieces(self) -> Iterator[bytes]:
        """The body from its start, in pieces; may be asked for again after a retry."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
