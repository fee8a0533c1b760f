"""Auth plugins' configurations on consumers and credentials ↔ Credential rows, with their secrets masked.

Used by `apisix_resources`. A secret goes from the document into `sealed_secret` and nowhere else; an answer shows
MASK in its place, and MASK written back means "unchanged". A reference is shown as it is: the secret stands elsewhere.
Refusals never quote a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps

from .. import crypto, references
from ..core.credential import MASK, is_reference
from ..plugins import PLUGINS, credential_problem, sealed_field
from .apisix_plugins import available, check, is_auth, schema_error, show_plugins, write_plugins
from .errors import ApiError, refuse
from .fields import Doc
from .writing import Writer

_PREFIX: Final = "invalid plugins configuration: "


def check_auth(name: str, config: Any) -> None:
    """Refuse (ApiError) what a credential for the plugin may not hold. A mask passes: it has a secret's shape."""
    plugin = _known(name)
    if not isinstance(config, dict):
        # APISIX quotes the value; here it may be the secret itself.
        raise refuse(f'{_PREFIX}invalid plugin conf "{MASK}" for plugin [{name}]')
    if text := schema_error(name, config, plugin.credential_schema):
        raise refuse(_PREFIX + text)
    sealed = sealed_field(name, config)
    given = config.get(sealed, "")
    if why := references.problem(given):
        raise _refused(name, f'property "{sealed}" validation failed: {why}')
    _check_together(name, config, None if given == MASK else given)


def _refused(name: str, why: str) -> ApiError:
    return refuse(f"{_PREFIX}failed to check the configuration of plugin {name} err: {why}")


def _check_together(name: str, config: Mapping[str, Any], secret: str | None) -> None:
    """Refuse (ApiError) fields that do not fit each other; `secret` None where it cannot be looked at."""
    found = credential_problem(name, config, secret)
    if found is not None:
        raise _refused(name, found.text)


def _known(name: str) -> Any:
    try:
        return available(name)
    except ApiError:
        raise refuse(f"{_PREFIX}unknown plugin [{name}]") from None


def fill_credential(row: Any, name: str, config: Mapping[str, Any]) -> bool:
    """Set a Credential's columns from a configuration; saves nothing. Returns whether the secret changed.

    Raises ApiError for a mask that stands for no stored secret.
    """
    plugin = available(name)
    sealed = sealed_field(name, config)
    given = config.get(sealed, "")
    same = row.plugin == name and sealed_field(name, row.settings) == sealed
    stored = row.sealed_secret if same else ""
    if given == MASK:
        if not stored:
            why = f"{MASK} stands for a secret that is stored already, and there is none"
            raise _refused(name, f'property "{sealed}" validation failed: {why}')
        _check_together(name, config, _open(stored))
    changed = bool(given != MASK and given != (_open(stored) if stored else ""))
    row.plugin = name
    row.settings = {key: value for key, value in config.items() if key not in (plugin.identifier_field, sealed)}
    if plugin.identifier_field != plugin.secret_field:
        row.identifier = config[plugin.identifier_field]
    if not given:
        row.drop_secret()
    elif changed:
        row.set_secret(given)
    return changed


def _open(sealed: str) -> str | None:
    try:
        return crypto.open_sealed(sealed) if sealed else None
    except crypto.CannotOpen:
        return None


def show_credential(row: Any) -> Doc:
    """The configuration that a Credential row stands for, its secret masked."""
    plugin = PLUGINS.get(row.plugin)
    settings = row.settings if isinstance(row.settings, dict) else {}
    value: Doc = {}
    if plugin is not None:
        value[plugin.identifier_field] = row.identifier
        if row.sealed_secret or plugin.identifier_field == plugin.secret_field:
            value[sealed_field(row.plugin, settings)] = _shown(row, plugin)
    return {**value, **{key: item for key, item in settings.items() if key not in value}}


def _shown(row: Any, plugin: Any) -> str:
    if plugin.identifier_field == plugin.secret_field and not is_reference(row.identifier):
        # A fingerprint: what it is of need not be opened.
        return MASK
    text = _open(row.sealed_secret) or ""
    return text if is_reference(text) else MASK


def refuse_duplicate(row: Any, writer: Writer) -> None:
    """Refuse (ApiError) an identifier that somebody else has, naming the owner as APISIX 3.18 does.

    A consumer's own entry and one of its credentials may share one. Runs under the version lock, so no other
    writer can come between this look and the save.
    """
    plugin = available(row.plugin)
    for other in writer.holders(row.plugin, row.identifier):
        if other.pk == row.pk:
            continue
        same_kind = (row.public_id is None) == (other.public_id is None)
        if other.consumer_id != row.consumer_id or same_kind:
            where = f"credential: {other.public_id} of consumer: " if other.public_id else "consumer: "
            raise refuse(
                f"duplicate {plugin.identifier_field} of plugin {row.plugin} found with {where}{other.consumer}"
            )


@dataclass(frozen=True)
class CredentialPart:
    """The `plugins` key of a credential: one auth plugin, in the row's own columns."""

    keys: tuple[str, ...] = ("plugins",)

    def check(self, doc: Doc) -> None:
        """Refuse wrong configurations; needs no database."""
        for name, config in doc["plugins"].items():
            if not is_auth(_known(name)):
                raise refuse("only supports auth type plugins in consumer credential")
            check_auth(name, config)

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Set plugin, identifier, settings and secret."""
        [(name, config)] = doc["plugins"].items()
        if fill_credential(row, name, config):
            row.secret_changed = True
        refuse_duplicate(row, writer)

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """All stands in the row's own columns."""

    def show(self, row: Any) -> Doc:
        """The `plugins` key, the secret masked."""
        return {"plugins": {row.plugin: show_credential(row)}}


@dataclass(frozen=True)
class ConsumerPluginsPart:
    """The `plugins` key of a consumer: auth plugins as entries of its own, the others as Plugin rows."""

    keys: tuple[str, ...] = ("plugins",)

    def check(self, doc: Doc) -> None:
        """Refuse wrong configurations; needs no database."""
        for name, config in doc.get("plugins", {}).items():
            if is_auth(_known(name)):
                check_auth(name, config)
                continue
            try:
                check(name, config)
            except ApiError as error:
                text = error.body["error_msg"] if isinstance(error.body, dict) else error.body
                raise refuse(_PREFIX + str(text)) from None

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Nothing stands in the consumer's own columns."""

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Make the own entries and the Plugin rows say what the document says."""
        wanted = doc.get("plugins", {})
        auth = {name: config for name, config in wanted.items() if is_auth(available(name))}
        model: Any = apps.get_model("hmac_consumers.Credential")
        own_rows = writer.below("hmac_consumers.Credential", row, consumer=row, public_id=None)
        present = {own.plugin: own for own in own_rows}
        for name in present.keys() - auth.keys():
            present[name].delete()
        for name, config in auth.items():
            own = present.get(name) or model(consumer=row, public_id=None, plugin=name)
            before = None if own._state.adding else show_credential(own)
            changed = fill_credential(own, name, config)
            if not changed and before == show_credential(own):
                continue
            if changed:
                row.secret_changed = True
            refuse_duplicate(own, writer)
            writer.save(own)
        write_plugins(row, "consumer", {name: config for name, config in wanted.items() if name not in auth}, writer)

    def show(self, row: Any) -> Doc:
        """The `plugins` key, secrets masked; an empty map only where one was sent."""
        own = [credential for credential in row.credentials.all() if credential.public_id is None]
        found = {credential.plugin: show_credential(credential) for credential in own}
        found.update(show_plugins(row))
        return {"plugins": found} if found or "plugins" in row.extra else {}
