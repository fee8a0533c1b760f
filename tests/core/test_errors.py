"""core.errors: what configuration and requests are refused with."""

from __future__ import annotations

import pytest

from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.reasons import Reason


def test_config_error_names_field_value_and_what_is_allowed() -> None:
    error = ConfigError("clock_skew", 0, "a number of at least 1")
    assert str(error) == "clock_skew: 0 was given; allowed: a number of at least 1"
    assert (error.field, error.given, error.allowed) == ("clock_skew", 0, "a number of at least 1")
    assert isinstance(error, ValueError)


def test_config_error_cuts_long_values() -> None:
    assert len(str(ConfigError("x", "v" * 10_000, "less"))) < 200


def test_rejected_can_be_raised_and_keeps_its_facts() -> None:
    with pytest.raises(Rejected) as caught:
        raise Rejected(Reason.BODY_TOO_LARGE, plugin="hmac-auth", facts={"size": 2, "limit": 1}, challenge="hmac")
    error = caught.value
    assert error.reason is Reason.BODY_TOO_LARGE
    assert (error.plugin, error.dialect, error.facts) == ("hmac-auth", "apisix", {"size": 2, "limit": 1})
    assert (error.challenge, error.detail, error.expose) == ("hmac", "", False)
    assert not isinstance(error, ConfigError)


def test_rejected_shows_its_reason_only() -> None:
    error = Rejected(Reason.UNKNOWN_KEY, plugin="hmac-auth", detail="key 'x'", facts={"a": "b"})
    assert repr(error) == "<Rejected hmac-auth: unknown_key>"
    assert str(error) == "unknown_key"
    assert repr(Rejected(Reason.NO_ROUTE)) == "<Rejected gateway: no_route>"


def test_reasons_are_stable_codes() -> None:
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in Reason)
    assert Reason.SIGNATURE_MISMATCH == "signature_mismatch"
