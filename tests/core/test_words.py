"""core.words: statuses and bodies, byte for byte."""

from __future__ import annotations

import json

import pytest

from hmac_gateway.core.errors import Rejected
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import TABLE, answer

CHALLENGE = 'hmac realm="hmac"'
FACTS = {
    "size": 11,
    "limit": 10,
    "header": "date",
    "type": "consumer_name",
    "why": "the path holds a dot segment",
    "name": "guest",
    "word": "Signature",
    "claim": "exp",
}


def apisix(reason: Reason, plugin: str = "hmac-auth", expose: bool = False) -> tuple[int, bytes, dict[str, str]]:
    status, body, headers = answer(Rejected(reason, plugin=plugin, facts=FACTS, challenge=CHALLENGE, expose=expose))
    return status, body, dict(headers)


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [
        (Reason.MISSING, 401, b'{"message":"Missing authorization in request"}\n'),
        (
            Reason.WRONG_SCHEME,
            401,
            b'{"message":"client request can\'t be validated:'
            b" Authorization header does not start with 'Signature'\"}\n",
        ),
        (Reason.ANONYMOUS_UNKNOWN, 401, b'{"message":"Invalid user authorization"}\n'),
        (Reason.REPLAYED, 401, b'{"message":"client request can\'t be validated: replayed"}\n'),
        (Reason.BODY_TOO_LARGE, 413, b'{"message":"request size 11 is greater than the maximum size 10 allowed"}\n'),
        (Reason.DUPLICATE_HEADER, 400, b'{"message":"duplicated header: date"}\n'),
        (Reason.REPLAY_STORE_UNAVAILABLE, 503, b'{"message":"replay protection is not available"}\n'),
        *(
            (reason, 401, b'{"message":"client request can\'t be validated"}\n')
            for reason in (
                Reason.MALFORMED_AUTHORIZATION,
                Reason.INCOMPLETE,
                Reason.ALGORITHM_MISSING,
                Reason.UNKNOWN_KEY,
                Reason.CREDENTIAL_DISABLED,
                Reason.CREDENTIAL_NOT_YET_VALID,
                Reason.CREDENTIAL_EXPIRED,
                Reason.SECRET_UNAVAILABLE,
                Reason.ALGORITHM_NOT_ALLOWED,
                Reason.DATE_MISSING,
                Reason.DATE_INVALID,
                Reason.DATE_NOT_SIGNED,
                Reason.CLOCK_SKEW,
                Reason.HEADER_NOT_SIGNED,
                Reason.HEADER_ABSENT,
                Reason.SIGNATURE_MALFORMED,
                Reason.SIGNATURE_MISMATCH,
                Reason.DIGEST_MISSING,
                Reason.DIGEST_NOT_SIGNED,
                Reason.DIGEST_MALFORMED,
                Reason.DIGEST_MISMATCH,
            )
        ),
    ],
)
def test_hmac_auth(reason: Reason, status: int, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    if status == 401:
        headers["www-authenticate"] = CHALLENGE
    assert apisix(reason) == (status, body, headers)


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [
        (Reason.NO_ROUTE, 404, b'{"error_msg":"404 Route Not Found"}\n'),
        (Reason.AMBIGUOUS_PATH, 400, b'{"message":"the path holds a dot segment"}\n'),
        (Reason.NOT_CONFIGURED, 503, b'{"message":"configuration not loaded"}\n'),
        (Reason.DIFFERENT_CONSUMERS, 401, b'{"message":"the credentials name different consumers"}\n'),
        (Reason.MALFORMED, 400, b'{"message":"bad request"}\n'),
    ],
)
def test_the_gateway_itself(reason: Reason, status: int, body: bytes) -> None:
    assert apisix(reason, plugin="")[:2] == (status, body)


def test_the_code_shows_only_where_asked_for() -> None:
    _, body, _ = apisix(Reason.UNKNOWN_KEY, expose=True)
    assert body == b'{"message":"client request can\'t be validated","code":"unknown_key"}\n'
    assert b"code" not in apisix(Reason.UNKNOWN_KEY)[1]


def test_no_challenge_no_header() -> None:
    assert answer(Rejected(Reason.MISSING, plugin="hmac-auth")).headers == [("content-type", "application/json")]


def test_kong_answers_are_indented_and_carry_the_request_id() -> None:
    found = answer(Rejected(Reason.NO_ROUTE, dialect="kong"), "abc")
    assert found.status == 404
    assert found.body == b'{\n  "message": "no Route matched with those values",\n  "request_id": "abc"\n}\n'


@pytest.mark.parametrize("dialect", ["apisix", "kong", "unheard-of"])
@pytest.mark.parametrize("plugin", ["", "hmac-auth", "unheard-of"])
@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_has_an_answer(dialect: str, plugin: str, reason: Reason) -> None:
    found = answer(Rejected(reason, plugin=plugin, dialect=dialect, facts=FACTS), "id")
    assert 400 <= found.status < 600
    assert found.body.endswith(b"}\n")
    (text, *_) = json.loads(found.body).values()
    assert text
    assert "{" not in text


def test_facts_are_inserted_and_never_read_as_a_template() -> None:
    for text in ("{0.__class__}", '"}', "\u20ac\n"):
        body = answer(Rejected(Reason.DUPLICATE_HEADER, facts={"header": text})).body
        assert json.loads(body) == {"message": f"duplicated header: {text}"}
        assert body.count(b"\n") == 1


def test_every_row_can_be_filled() -> None:
    for row in TABLE.values():
        assert row.text.format(**FACTS)
