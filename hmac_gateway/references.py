"""Secrets that stand in the environment: `$env://NAME`, and `$env://NAME/field` where NAME holds a JSON object.

Called by whatever writes credentials, and by the compile step, which needs the secret. Source: APISIX's secrets; that
only names with ENV_PREFIX may be asked for is ours. Imports `conf` and `core.credential`; knows no model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from .conf import conf
from .core.credential import is_reference

#: A credential's column for what it is found by.
MAX_LENGTH: Final = 256
_FORM: Final = re.compile(r"\$env://([A-Za-z_][A-Za-z0-9_]*)(?:/([\x20-\x7e]+))?", re.IGNORECASE)


class Refused(ImproperlyConfigured):
    """A reference that may not be stored. Says what may."""


class Unresolved(Exception):
    """A reference that leads to no secret in this process. Never carries what was found."""


def problem(text: str) -> str | None:
    """Why a reference may not stand for a secret; None where it may, or where the text is no reference.

    Whether the variable is there is not looked at: the process that verifies requests may be another one.
    """
    if not is_reference(text):
        return None
    allowed = f"allowed is $env://NAME or $env://NAME/field, where NAME begins with {conf.env_prefix}"
    found = _FORM.fullmatch(text)
    if found is None:
        kind = text.partition("://")[0].lower()
        if kind == "$env":
            return f"not the name of a variable; {allowed}"
        return f"{kind}:// is not supported, there are no secret managers; {allowed}"
    if not _may_ask(found[1]):
        return f"a variable that may not be asked for; {allowed}"
    if len(text) > MAX_LENGTH:
        return f"longer than {MAX_LENGTH} characters"
    return None


def refuse(text: str) -> None:
    """Raise Refused for a reference that may not be stored."""
    if why := problem(text):
        raise Refused(f"the reference is {why}.")


def canonical(text: str) -> str:
    """One spelling of a reference that may be stored: APISIX reads `$ENV://` and `$env://` alike."""
    return "$env" + text[4:]


def resolve(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The secret that a reference leads to, never empty. Raises Unresolved, which says why."""
    if why := problem(text):
        raise Unresolved(why)
    found = _FORM.fullmatch(text)
    if found is None:
        raise Unresolved("no reference")
    name, field = found[1], found[2]
    value = environ.get(name)
    if value is None:
        raise Unresolved(f"the variable {name} is not set")
    if field is not None:
        try:
            held = json.loads(value)
        except (ValueError, RecursionError):
            held = None
        if not isinstance(held, dict) or not isinstance(held.get(field), str):
            raise Unresolved(f"the variable {name} holds no JSON object with this field as a text")
        value = held[field]
    if not value:
        raise Unresolved(f"the variable {name} is empty")
    # What is no UTF-8 in the environment is no text that anybody could have typed as a secret.
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unresolved(f"the variable {name} is not UTF-8") from None
    return value


def _may_ask(name: str) -> bool:
    # Without a prefix every variable could be tried, this process's own keys among them.
    return bool(conf.env_prefix) and name.startswith(conf.env_prefix)
