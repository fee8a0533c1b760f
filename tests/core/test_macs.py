"""core.macs: HMAC by the RFCs' vectors, and base64 that means one thing only."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_gateway.core.macs import ALGORITHMS, DIGESTS, DUMMY_SECRET, decode_base64, encode_base64, equal, mac

from ..support.engine import vectors


@pytest.mark.parametrize("case", vectors("rfc/rfc4231.json"), ids=lambda case: f"case {case['case']}")
@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-sha384", "hmac-sha512"])
def test_rfc_4231(case: dict[str, Any], algorithm: str) -> None:
    found = mac(algorithm, bytes.fromhex(case["key"]), bytes.fromhex(case["data"]))
    assert found.hex() == case[algorithm]


@pytest.mark.parametrize("case", vectors("rfc/rfc2202.json"), ids=lambda case: f"case {case['case']}")
def test_rfc_2202(case: dict[str, Any]) -> None:
    assert mac("hmac-sha1", bytes.fromhex(case["key"]), bytes.fromhex(case["data"])).hex() == case["hmac-sha1"]


def test_which_algorithms_there_are() -> None:
    assert set(ALGORITHMS) == {"hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"}
    assert set(DIGESTS) == {"SHA-256", "SHA-512"}


def test_equal() -> None:
    assert equal(b"abc", b"abc")
    assert not equal(b"abc", b"abd")
    assert not equal(b"abc", b"ab")
    assert not equal(b"abc", b"")


def test_nobody_can_have_the_dummy_secret() -> None:
    # Secrets are text of a configuration; this one is not.
    with pytest.raises(UnicodeDecodeError):
        DUMMY_SECRET.decode()


# RFC 4648 10.
@pytest.mark.parametrize(
    ("text", "data"),
    [("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("Zm9vYg==", b"foob"), ("Zm9vYmE=", b"fooba")],
)
def test_rfc_4648(text: str, data: bytes) -> None:
    assert decode_base64(text) == data
    assert decode_base64(text.rstrip("=")) == data
    assert encode_base64(data) == text


def test_padding_may_be_missing_in_part() -> None:
    assert decode_base64("Zg=") == b"f"


@pytest.mark.parametrize(
    "text",
    [
        "Zm9v=",
        "Zm9v====",
        "Zm8==",
        "Zg===",
        "Zg==Zg==",
        "Zm9v,",
        "Zm9v\n",
        " Zm9v",
        "Zm 9v",
        "Z",
        "Zm9vY",
        "=",
        "====",
        "-_-_",
        "Zm9\xe9",
        "Zm9\u20ac",
        "%3D",
    ],
)
def test_refused(text: str) -> None:
    assert decode_base64(text) is None


@given(st.binary())
def test_round_trip_as_the_library_writes_it(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert encode_base64(data) == text
    assert decode_base64(text) == data
    assert decode_base64(text.rstrip("=")) == data


@given(st.text())
def test_no_text_raises(text: str) -> None:
    decode_base64(text)
