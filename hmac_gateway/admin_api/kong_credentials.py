"""Kong's credentials of hmac-auth, key-auth, basic-auth and jwt ↔ Credential rows.

A secret goes from the document into `sealed_secret` and nowhere else; an answer shows MASK in its place, and MASK
written back means "unchanged". One that is made here is left on the row as `generated`, to be shown once. A reference
is shown as it is: the secret stands elsewhere.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.utils import timezone

from .. import crypto, references
from ..core.credential import MASK, is_reference
from ..models import ConfigVersion
from ..plugins import jwt_keys
from .kong_consumers import FIELDS as CONSUMER_FIELDS
from .kong_entity import Doc, Entity, Unique, common, key_of, reference
from .kong_errors import ENTITY, schema_violation
from .kong_formats import ID, STAMP, TAGS, foreign
from .kong_spec import REQUIRED, Spec

_LETTERS: Final = string.ascii_letters + string.digits
_NOTHING_STORED: Final = f"{MASK} stands for a secret that is stored already, and there is none"


def new_secret() -> str:
    """Kong's form of a secret: 32 letters and digits, 190 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(32))


def check_secret(value: str) -> str | None:
    """A secret; references may name allowed variables only."""
    return references.problem(value)


_SECRET: Final = Spec(kind="string", auto=True, secret=True, check=check_secret, length=(1, 4096))
_NAME: Final = Spec(kind="string", required=True, unique=True, length=(1, 256))


def _fields(**own: Spec) -> Mapping[str, Spec]:
    return {
        "id": ID,
        "created_at": STAMP,
        "consumer": foreign("consumers", CONSUMER_FIELDS, required=True),
        **own,
        "tags": TAGS,
    }


@dataclass(frozen=True, slots=True)
class Method:
    """How a method's credential stands in a row: the plugin, and its fields for the identifier and the secret."""

    plugin: str
    identifier: str
    secret: str
    extra: Callable[[Any, Doc], None] | None = None
    more: Callable[[Any], Doc] | None = None

    def fill(self, row: Any, doc: Doc) -> None:
        """Set the columns. Raises KongError for a mask that stands for nothing."""
        if row._state.adding:
            row.dialect = "kong"
            # One id in both admin APIs.
            row.public_id = str(row.pk)
        row.consumer_id = key_of(doc, "consumer")
        row.plugin = self.plugin
        row.tags = doc["tags"] or []
        row.generated = {}
        if self.extra is not None:
            self.extra(row, doc)
        if self.identifier != self.secret:
            row.identifier = self._made(row, doc, self.identifier)
        if self.plugin == "jwt-auth" and not _shared(row.settings):
            # Kong makes a secret even for key pairs, which is of no use.
            row.drop_secret()
            return
        given = self._made(row, doc, self.secret)
        if given == MASK:
            if not row.sealed_secret:
                raise schema_violation({self.secret: _NOTHING_STORED})
            return
        if row.sealed_secret and _open(row.sealed_secret) == given:
            return
        row.set_secret(given)
        row.secret_changed = True

    def _made(self, row: Any, doc: Doc, name: str) -> str:
        if doc[name] is None:
            row.generated[name] = new_secret()
        return str(row.generated.get(name, doc[name]))

    def show(self, row: Any) -> Doc:
        """The document, its secret masked."""
        doc = {
            **common(row),
            "consumer": reference(row.consumer_id),
            self.identifier: row.identifier,
            self.secret: shown_secret(row),
            **({} if self.more is None else self.more(row)),
        }
        del doc["updated_at"]
        return doc

    def by_key(self, text: str) -> Mapping[str, Any] | None:
        """The rows that a text in an address may mean."""
        found = _identifier(self, text)
        return None if found is None else {"identifier": found}

    def clash(self, doc: Doc) -> Mapping[str, Any] | None:
        """The rows that have the identifier, those of other dialects included."""
        text = doc[self.identifier]
        if text is None or (self.identifier == self.secret and text == MASK):
            return None
        found = _identifier(self, text)
        return None if found is None else {"plugin": self.plugin, "identifier": found}


def _identifier(method: Method, text: str) -> str | None:
    if method.identifier != method.secret:
        return text
    if is_reference(text):
        return references.canonical(text)
    # A key is found by its fingerprint. Where there is no key to make one with, nothing was stored.
    if not ConfigVersion.is_sealed():
        return None
    return crypto.fingerprint(text, method.plugin, ConfigVersion.fingerprint_bytes())


def _shared(settings: Mapping[str, Any]) -> bool:
    return settings.get("algorithm", jwt_keys.DEFAULT_ALGORITHM) in jwt_keys.SYMMETRIC


def _open(sealed: str) -> str | None:
    try:
        return crypto.open_sealed(sealed)
    except crypto.CannotOpen:
        return None


def shown_secret(row: Any) -> str | None:
    """A row's secret as answers have it: masked, or the reference; None where it has none."""
    if not row.sealed_secret:
        return None
    text = _open(row.sealed_secret) or ""
    return text if is_reference(text) else MASK


def clear_secret(row: Any) -> str | None:
    """A row's secret in clear, for an export that is asked to have it. Raises CannotOpen."""
    return crypto.open_sealed(row.sealed_secret) if row.sealed_secret else None


# --- what single methods add ---


def _fill_jwt(row: Any, doc: Doc) -> None:
    settings = {**row.settings, "algorithm": doc["algorithm"], "public_key": doc["rsa_public_key"]}
    row.settings = {name: item for name, item in settings.items() if item is not None}


def _show_jwt(row: Any) -> Doc:
    return {
        "algorithm": row.settings.get("algorithm", jwt_keys.DEFAULT_ALGORITHM),
        "rsa_public_key": row.settings.get("public_key"),
    }


_BY_ALGORITHM: Final = {ENTITY: ["failed conditional validation given value of field 'algorithm'"]}


def _check_jwt(doc: Doc) -> Mapping[str, Any] | None:
    """A key pair's algorithm needs the public key, and every key must suit its algorithm."""
    if "algorithm" in doc["@errors"] or "rsa_public_key" in doc["@errors"] or "secret" in doc["@errors"]:
        return None
    shared = _shared(doc)
    if not shared and doc["rsa_public_key"] is None:
        return {"rsa_public_key": REQUIRED, **_BY_ALGORITHM}
    secret = doc["secret"] if shared else ""
    secret = None if secret is None or secret == MASK or is_reference(secret) else secret
    settings = {"algorithm": doc["algorithm"], "public_key": doc["rsa_public_key"]}
    found = jwt_keys.problem(settings, secret)
    if found is None:
        return None
    if found.field == "secret":
        return {"secret": f"invalid key: allowed is {found.allowed}"}
    reason = "invalid key"
    if jwt_keys.is_public(doc["rsa_public_key"]):
        # Kong would take it.
        reason += f": allowed is {found.allowed}"
    return {"rsa_public_key": reason, **_BY_ALGORITHM}


def _fill_ttl(row: Any, doc: Doc) -> None:
    if not doc["ttl"]:
        # Zero is no end, as in Kong.
        row.expires_at = None
    elif doc["ttl"] != _ttl(row):
        row.expires_at = timezone.now() + timedelta(seconds=doc["ttl"])


def _ttl(row: Any) -> int | None:
    if row.expires_at is None:
        return None
    # Never zero, which would mean no end when it is written back.
    left: timedelta = row.expires_at - timezone.now()
    return max(1, round(left.total_seconds()))


def _show_ttl(row: Any) -> Doc:
    return {"ttl": _ttl(row)}


def _entity(name: str, path: str, nested: str, method: Method, fields: Mapping[str, Spec], *checks: Any) -> Entity:
    return Entity(
        name=name,
        path=path,
        nested=nested,
        model="hmac_consumers.Credential",
        # What APISIX writes on a consumer itself has no id of its own.
        scope={"plugin": method.plugin, "public_id__isnull": False},
        fields=fields,
        fill=method.fill,
        show=method.show,
        checks=checks,
        key=method.identifier,
        by_key=method.by_key,
        unique=(Unique((method.identifier,), method.clash),),
        columns={"identifier": method.identifier, "secret": method.secret, "settings": method.secret},
    )


HMAC_AUTHS: Final = _entity(
    "hmacauth_credentials",
    "hmac-auths",
    "hmac-auth",
    Method("hmac-auth", "username", "secret"),
    _fields(username=_NAME, secret=_SECRET),
)
KEY_AUTHS: Final = _entity(
    "keyauth_credentials",
    "key-auths",
    "key-auth",
    Method("key-auth", "key", "key", _fill_ttl, _show_ttl),
    _fields(
        key=Spec(kind="string", auto=True, unique=True, secret=True, check=check_secret, length=(1, 4096)),
        ttl=Spec(kind="integer", between=(0, 100_000_000)),
    ),
)
BASIC_AUTHS: Final = _entity(
    "basicauth_credentials",
    "basic-auths",
    "basic-auth",
    Method("basic-auth", "username", "password"),
    _fields(
        username=_NAME,
        password=Spec(kind="string", required=True, secret=True, check=check_secret, length=(1, 4096)),
    ),
)
JWTS: Final = _entity(
    "jwt_secrets",
    "jwts",
    "jwt",
    Method("jwt-auth", "key", "secret", _fill_jwt, _show_jwt),
    _fields(
        key=Spec(kind="string", auto=True, unique=True, length=(1, 256)),
        secret=_SECRET,
        algorithm=Spec(kind="string", default="HS256", one_of=jwt_keys.ALGORITHMS),
        rsa_public_key=Spec(kind="string", length=(1, 16384)),
    ),
    _check_jwt,
)
