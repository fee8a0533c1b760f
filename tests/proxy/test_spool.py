"""The spool: what went in comes out, as often as asked; large bodies in a file that goes away."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.identity import BodyRule
from proxy.spool import Spool


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(st.lists(st.binary(max_size=200)), st.integers(1, 300))
def test_body_comes_out_as_it_went_in(chunks: list[bytes], in_memory: int) -> None:
    digest = BodyRule("SHA-256", None, 10**9).start()
    body = b"".join(chunks)
    with Spool([digest], in_memory) as spool:
        for chunk in chunks:
            spool.write(chunk)
        assert spool.size == len(body)
        for _ in range(2):  # a retry reads it again
            assert b"".join(spool.pieces()) == body
    assert digest.size == len(body)
    assert digest.base64() == [base64.b64encode(hashlib.sha256(body).digest()).decode()]


def test_every_digest_is_fed() -> None:
    digests = [BodyRule("SHA-256", None, 9).start(), BodyRule("SHA-512", None, 9).start()]
    with Spool(digests, 10) as spool:
        spool.write(b"abc")
        spool.write(b"def")
    sums = [hashlib.sha256(b"abcdef"), hashlib.sha512(b"abcdef")]
    assert [digest.base64() for digest in digests] == [[base64.b64encode(each.digest()).decode()] for each in sums]


def test_interrupted_reading_starts_over() -> None:
    body = os.urandom(1_000_000)
    with Spool([], 1000) as spool:
        spool.write(body)
        pieces = spool.pieces()
        first = next(pieces)
        assert 0 < len(first) < len(body)
        assert b"".join(spool.pieces()) == body


@pytest.mark.parametrize("breaks", [False, True])
def test_file_exists_only_for_large_bodies_and_goes_at_the_end(breaks: bool) -> None:
    before = open_files()
    try:
        with Spool([], 1000) as spool:
            spool.write(b"x" * 1000)
            assert open_files() == before
            spool.write(b"x")
            assert open_files() == before + 1
            if breaks:
                raise ConnectionError
    except ConnectionError:
        pass
    assert open_files() == before
