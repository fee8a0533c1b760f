"""heads: whether a second Authorization was joined to the first is found out alike by the short way and by the long."""

from __future__ import annotations

import random

from hmac_gateway.adapters import heads

PIECES = [
    '"', '="', ",", ", ", " ", "\t", "=", "x", "Basic ", "Signature ", 'keyId="k"', 'headers="@request-target date"',
    'signature="QUI="', "signature=", ",Basic dXNlcjpw", ", Bearer a.b.c", 'foo="', ',a="b"',
]  # fmt: skip


def searched(credentials: str) -> bool:
    return heads._searched.__wrapped__(credentials)


def test_a_signature_is_no_part_of_what_is_remembered() -> None:
    heads._searched.cache_clear()
    for signature in ("QUJD", "QUI=", "QQ==", "Qg=="):
        assert not heads._again(f'Signature keyId="k",algorithm="hmac-sha256",headers="date",signature="{signature}"')
    assert heads._searched.cache_info().currsize == 1


def test_the_short_way_says_what_the_long_way_says() -> None:
    dice = random.Random(7)
    for _ in range(20_000):
        credentials = "".join(dice.choices(PIECES, k=dice.randint(1, 9)))
        if "," in credentials:
            assert heads._again(credentials) is searched(credentials), credentials
