"""CREDENTIALS: every entry can be used, and somebody can get in. No message holds a secret.

Imports `site_settings`, which knows what an entry may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning

from ..core.credential import is_reference
from ..core.errors import ConfigError
from ..site_settings import CREDENTIAL_KEYS, credentials_snapshot
from .common import did_you_mean, shortened, tables_installed, value
from .values import readable

#: RFC 2104 discourages keys shorter than the digest; 16 bytes at random are still beyond guessing.
MIN_SECRET: Final = 16
_SECRETS: Final = ("secret_key", "previous_secret_key")


def check_credentials(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Entries that requests could not be checked against; and a site that nobody can enter."""
    if not readable("CREDENTIALS", "PROTECT"):
        return
    entries = value("CREDENTIALS")
    problems = [found for key_id, entry in entries.items() for found in _problems(key_id, entry)]
    if not problems:
        try:
            credentials_snapshot(entries)
        except (ConfigError, TypeError, ValueError) as error:
            problems.append(_error(_sentence(error)))
    yield from problems
    if value("PROTECT"):
        yield from nobody("HMAC_GATEWAY['PROTECT']")


def nobody(asking: str) -> Iterator[CheckMessage]:
    """What asks for credentials on a site that has none."""
    if not value("CREDENTIALS") and not tables_installed():
        yield Error(
            f"{asking} asks for credentials, but there are none: HMAC_GATEWAY['CREDENTIALS'] is empty, and the apps "
            "that store them are not installed.",
            hint="Fill CREDENTIALS, or add hmac_gateway.EMBED to INSTALLED_APPS.",
            id="hmac_gateway.E010",
        )


def _problems(key_id: Any, entry: Any) -> Iterator[CheckMessage]:
    where = f"CREDENTIALS[{key_id!r}]"
    if isinstance(entry, Mapping):
        wrong = False
        for field in entry:
            if field not in CREDENTIAL_KEYS:
                wrong = True
                yield _error(
                    f"{where} has an unknown key: {field!r}.",
                    did_you_mean(field, CREDENTIAL_KEYS, f"Known keys: {', '.join(CREDENTIAL_KEYS)}."),
                )
        for field in _SECRETS:
            text = entry.get(field)
            if isinstance(text, str) and is_reference(text):
                wrong = True
                yield _error(
                    f"{where}.{field} is a reference, which nothing looks up.",
                    f"Look it up in the settings: {field!r}: os.environ[…].",
                )
        for field in ("custom_id", "groups", "labels"):
            if not _texts(field, entry.get(field)):
                wrong = True
                yield _error(f"{where}.{field} is {type(entry[field]).__name__}.", _FORMS[field])
        if wrong:
            return
    try:
        credentials_snapshot({key_id: entry})
    except (ConfigError, TypeError, ValueError) as error:
        yield _error(_sentence(error))


_FORMS: Final = {
    "custom_id": "Allowed: a text.",
    "groups": "Allowed: a list of texts.",
    "labels": "Allowed: a dict of texts.",
}


def _texts(field: str, found: Any) -> bool:
    if found is None or field == "custom_id":
        return found is None or isinstance(found, str)
    if field == "labels":
        return isinstance(found, Mapping) and all(isinstance(text, str) for pair in found.items() for text in pair)
    return isinstance(found, list | tuple | set | frozenset) and all(isinstance(text, str) for text in found)


def _sentence(error: Exception) -> str:
    # What is no ConfigError may quote what it was given.
    if isinstance(error, ConfigError):
        return f"{error.field} cannot be used; allowed: {error.allowed}."
    return "HMAC_GATEWAY['CREDENTIALS'] cannot be used."


def _error(text: str, hint: str = "") -> CheckMessage:
    return Error(text, hint=hint or "Write {'KEY ID': {'secret_key': '…', 'username': '…'}}.", id="hmac_gateway.E009")


def check_short_secrets(app_configs: object, **kwargs: Any) -> Iterator[CheckMessage]:
    """Secrets that may be found by trying, from one request that was overheard. With `check --deploy`."""
    entries = value("CREDENTIALS")
    short = [
        repr(key_id)
        for key_id, entry in (entries.items() if isinstance(entries, Mapping) else ())
        if isinstance(entry, Mapping)
        and any(isinstance(entry.get(field), str) and 0 < len(entry[field].encode()) < MIN_SECRET for field in _SECRETS)
    ]
    if short:
        yield Warning(
            f"Secrets of fewer than {MIN_SECRET} bytes in HMAC_GATEWAY['CREDENTIALS']: {shortened(short)}.",
            hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            id="hmac_gateway.W014",
        )
