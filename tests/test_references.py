"""`$env://` references: which may be stored, what they lead to, and that they fail closed."""

from __future__ import annotations

import pytest

from hmac_gateway import references

ALLOWED = "allowed is $env://NAME or $env://NAME/field, where NAME begins with GATEWAY_SECRET_"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "",
        "env://X",
        "$env:/X",
        "$env://GATEWAY_SECRET_A",
        "$ENV://GATEWAY_SECRET_A/field/x",
        "$EnV://GATEWAY_SECRET_",
    ],
)
def test_may_stand_for_a_secret(text: str) -> None:
    assert references.problem(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("$env://SECRET_KEY", f"a variable that may not be asked for; {ALLOWED}"),
        ("$env://gateway_secret_a", f"a variable that may not be asked for; {ALLOWED}"),
        ("$env://HMAC_GATEWAY_ENCRYPTION_KEYS", f"a variable that may not be asked for; {ALLOWED}"),
        ("$env://", f"not the name of a variable; {ALLOWED}"),
        ("$ENV://GATEWAY_SECRET_A/", f"not the name of a variable; {ALLOWED}"),
        ("$env://GATEWAY_SECRET_A\n", f"not the name of a variable; {ALLOWED}"),
        ("$env://GATEWAY_SECRET_A=b", f"not the name of a variable; {ALLOWED}"),
        ("$secret://vault/1/a/b", f"$secret:// is not supported, there are no secret managers; {ALLOWED}"),
        ("$SECRET://aws/1/a", f"$secret:// is not supported, there are no secret managers; {ALLOWED}"),
        ("$env://GATEWAY_SECRET_" + "A" * 240, "longer than 256 characters"),
    ],
)
def test_may_not(text: str, why: str) -> None:
    assert references.problem(text) == why
    with pytest.raises(references.Refused):
        references.refuse(text)
    with pytest.raises(references.Unresolved):
        references.resolve(text, {"SECRET_KEY": "s", "HMAC_GATEWAY_ENCRYPTION_KEYS": "s", "gateway_secret_a": "s"})


def test_the_prefix_is_a_setting(settings: object) -> None:
    settings.HMAC_GATEWAY = {"ENV_PREFIX": "PARTNER_"}  # type: ignore[attr-defined]
    assert references.resolve("$env://PARTNER_A", {"PARTNER_A": "s"}) == "s"
    assert references.problem("$env://GATEWAY_SECRET_A")
    settings.HMAC_GATEWAY = {"ENV_PREFIX": ""}  # type: ignore[attr-defined]
    assert references.problem("$env://PARTNER_A")


def test_resolves() -> None:
    environ = {"GATEWAY_SECRET_A": "s3", "GATEWAY_SECRET_J": '{"a": "one", "n": 1, "e": "", "b/c": "two"}'}
    assert references.resolve("$env://GATEWAY_SECRET_A", environ) == "s3"
    assert references.resolve("$ENV://GATEWAY_SECRET_J/a", environ) == "one"
    assert references.resolve("$env://GATEWAY_SECRET_J/b/c", environ) == "two"


@pytest.mark.parametrize(
    ("text", "value", "why"),
    [
        ("$env://GATEWAY_SECRET_B", "s", "the variable GATEWAY_SECRET_B is not set"),
        ("$env://GATEWAY_SECRET_A", "", "the variable GATEWAY_SECRET_A is empty"),
        ("$env://GATEWAY_SECRET_A", "\udcff", "the variable GATEWAY_SECRET_A is not UTF-8"),
        ("$env://GATEWAY_SECRET_A/x", "hunter2", "no JSON object with this field"),
        ("$env://GATEWAY_SECRET_A/x", "[" * 100_000, "no JSON object with this field"),
        ("$env://GATEWAY_SECRET_A/x", '["x"]', "no JSON object with this field"),
        ("$env://GATEWAY_SECRET_A/x", '{"x": 1}', "no JSON object with this field"),
        ("$env://GATEWAY_SECRET_A/x", '{"y": "hunter2"}', "no JSON object with this field"),
        ("$env://GATEWAY_SECRET_A/x", '{"x": ""}', "is empty"),
    ],
)
def test_leads_nowhere(text: str, value: str, why: str) -> None:
    with pytest.raises(references.Unresolved) as caught:
        references.resolve(text, {"GATEWAY_SECRET_A": value})
    assert why in str(caught.value) and "hunter2" not in str(caught.value)
