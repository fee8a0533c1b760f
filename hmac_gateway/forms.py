"""Form fields and base forms of the console: lists as lines, maps as lines, JSON with readable errors.

Used by the admin modules of the three apps. Imports Django's forms, crypto and defaults; no concrete model.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ImproperlyConfigured, ValidationError
from django.db import models
from django.utils.text import capfirst

from .crypto import CannotOpen
from .defaults import new_secret

if TYPE_CHECKING:
    BaseModelForm = forms.ModelForm[models.Model]
else:
    BaseModelForm = forms.ModelForm

#: JSON columns that hold a list of strings, and those that hold a map of strings.
LINE_FIELDS = frozenset(["paths", "hosts", "methods", "remote_addrs", "protocols", "tags"])
PAIR_FIELDS = frozenset(["labels"])

#: For how long a rotated secret may stay good, in seconds.
KEEP_CHOICES = [
    ("0", "not at all: it ends now"),
    ("3600", "one hour"),
    ("86400", "one day"),
    ("604800", "seven days"),
    ("2592000", "thirty days"),
]


class LinesField(forms.CharField):
    """A list of strings, edited as one item per line."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.Textarea(attrs={"rows": 3, "cols": 60, "class": "vLargeTextField"}))
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list):
            return value
        return [line.strip() for line in (value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(initial) != self.to_python(data))


class PairsField(forms.CharField):
    """A map of strings, edited as one `key=value` per line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.Textarea(attrs={"rows": 3, "cols": 60, "class": "vLargeTextField"}))
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return "\n".join(f"{key}={text}" for key, text in value.items())
        return value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        pairs: dict[str, str] = {}
        for line in (value or "").splitlines():
            if not line.strip():
                continue
            key, equals, text = line.partition("=")
            if not equals:
                raise ValidationError(f"got {line.strip()!r}, allowed is one key=value per line.")
            pairs[key.strip()] = text.strip()
        return pairs

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(initial) != self.to_python(data))
        except ValidationError:
            return True


class JsonField(forms.JSONField):
    """A JSON value, shown indented; an empty box is the empty map or list, never null."""

    def __init__(self, *, empty: type[dict[str, Any]] | type[list[Any]] = dict, **kwargs: Any) -> None:
        self.empty = empty
        kwargs.setdefault(
            "widget",
            forms.Textarea(attrs={"rows": 4, "cols": 80, "class": "vLargeTextField", "spellcheck": "false"}),
        )
        super().__init__(**kwargs)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, forms.fields.InvalidJSONInput):
            return str(value)
        return json.dumps(value, indent=2, ensure_ascii=False)

    def clean(self, value: Any) -> Any:
        cleaned = super().clean(value.strip() if isinstance(value, str) else value)
        return self.empty() if cleaned is None else cleaned

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except ValidationError as error:
            if error.code != "invalid":
                raise
            try:
                json.loads(value)
            except json.JSONDecodeError as fault:
                where = f"line {fault.lineno}, column {fault.colno}"
                raise ValidationError(f"not valid JSON: {fault.msg} ({where}).", "invalid") from None
            raise

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(initial, (data or "").strip() or json.dumps(self.empty()))


def json_formfield(field: models.JSONField[Any, Any]) -> forms.Field:
    """Return the form field that suits a JSON column: lines, pairs or JSON."""
    options: dict[str, Any] = {
        "required": False,
        "label": capfirst(str(field.verbose_name)),
        "help_text": field.help_text,
        "initial": field.get_default(),
    }
    if field.name in LINE_FIELDS:
        options["help_text"] = field.help_text or "One per line."
        return LinesField(**options)
    if field.name in PAIR_FIELDS:
        options["help_text"] = field.help_text or "One key=value per line."
        return PairsField(**options)
    if field.name == "config":
        options["widget"] = forms.Textarea(
            attrs={"rows": 9, "cols": 80, "class": "vLargeTextField", "spellcheck": "false"}
        )
    return JsonField(empty=list if field.default is list else dict, **options)


class EntityForm(BaseModelForm):
    """A form over some of a model's fields that survives errors on the others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        key = self.instance._meta.pk.name
        self._fixed = key if key in self.fields and not self.instance._state.adding else ""
        if self._fixed:
            # Not disabled: browsers leave such fields out, and Django finds an inline's row by the key that comes back.
            self.fields[key].widget.attrs["readonly"] = True

    def clean(self) -> dict[str, Any]:
        """Whatever came: a changed key would make a second object."""
        cleaned = super().clean() or self.cleaned_data
        if self._fixed:
            cleaned[self._fixed] = self.instance.pk
        return cleaned

    def add_error(self, field: str | None, error: Any) -> None:
        """Add `error`; what belongs to a field that this form does not show goes on top of the form."""
        if field is None and isinstance(error, ValidationError) and hasattr(error, "error_dict"):
            shown: dict[str, list[ValidationError]] = {}
            for name, errors in error.error_dict.items():
                shown.setdefault(name if name in self.fields else NON_FIELD_ERRORS, []).extend(errors)
            error = ValidationError(shown)
        super().add_error(field, error)


class PluginForm(EntityForm):
    """A plugin attached somewhere: the name is chosen among those that are available.

    A new one proposes more than the original's defaults: what hmac-auth should cover on most routes. Where another
    plugin is chosen and the proposal was left as it is, that plugin's own is taken in its place. Secrets in the
    configuration are shown masked, to readers too; a mask that is sent back leaves its secret as it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from . import sealing

        row: Any = self.instance
        self._stored = row.name, row.config
        row.config = sealing.shown(row.name, row.config)
        if "config" in self.initial:
            self.initial["config"] = row.config
        if "config" in self.fields:
            self.fields["config"].help_text = (
                "{} takes the defaults of the original. What is proposed is for hmac-auth; left as it is, another "
                "plugin, or Kong's dialect, gets a proposal of its own."
            )
            if self.instance._state.adding and not self.initial.get("config"):
                from .plugins.hmac_auth import PROPOSED

                self.initial["config"] = PROPOSED
        if "name" in self.fields:
            # Imported late: forms are loaded with the admin, plugins with the engine.
            from .conf import conf
            from .plugins import ALL

            names = {*(ALL if conf.plugins_available is None else conf.plugins_available)}
            if current := getattr(self.instance, "name", ""):
                names.add(current)
            choices = [("", "---------"), *((name, name) for name in sorted(names))]
            self.fields["name"] = forms.ChoiceField(choices=choices, label="Plugin")

    def clean(self) -> dict[str, Any]:
        from . import sealing
        from .core.errors import ConfigError
        from .plugins import ALL
        from .plugins.hmac_auth import PROPOSED

        cleaned = super().clean() or self.cleaned_data
        name = cleaned.get("name", "")
        plugin = ALL.get(name)
        if self.instance._state.adding and plugin is not None and cleaned.get("config") == PROPOSED:
            kong = cleaned.get("dialect") == "kong"
            cleaned["config"] = getattr(plugin, "KONG_PROPOSED" if kong else "PROPOSED", {})
        before, stored = self._stored
        if "config" not in self.fields:
            row: Any = self.instance
            row.config = stored
        elif "config" in cleaned:
            try:
                cleaned["config"] = sealing.taken(name, cleaned["config"], stored if name == before else None)
            except ConfigError as error:
                self.add_error("config", str(error))
        return cleaned


class SecretForm(EntityForm):
    """A credential with its secret: made or typed here, shown once afterwards, never again.

    `new_secret` is the text to show after saving, or empty.
    """

    secret = forms.CharField(
        required=False,
        strip=False,
        max_length=4096,
        widget=forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.new_secret = ""
        self.adding = self.instance._state.adding
        if self.adding:
            self.fields["secret"].help_text = "Leave empty to have one made. It is shown once, after saving."
            return
        self.fields["secret"].help_text = "Leave empty to keep the one it has."
        self.fields["secret"].widget.attrs["placeholder"] = "••••••••"
        if "plugin" in self.fields:
            self.fields["plugin"].disabled = True
        if "identifier" in self.fields and self.instance.plugin == "key-auth":  # type: ignore[attr-defined]
            # The fingerprint of a key says nothing to a reader.
            self.fields["identifier"].disabled = True
            self.initial["identifier"] = ""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        credential: Any = self.instance
        plugin = cleaned.get("plugin") or credential.plugin
        if plugin == "key-auth" and cleaned.get("identifier"):
            self.add_error("identifier", "Leave this empty: a key is its own name. Type it as the secret.")
            return cleaned
        secret = cleaned.get("secret") or ""
        algorithm = str((cleaned.get("settings") or {}).get("algorithm", ""))
        # A public key is configured, not made; every other credential has a secret of ours or the caller's.
        if not secret and self.adding and plugin and not (plugin == "jwt-auth" and algorithm[:2] not in ("", "HS")):
            secret = new_secret()
        if secret and plugin:
            credential.plugin = plugin
            try:
                credential.set_secret(secret)
            except (ImproperlyConfigured, CannotOpen) as error:
                self.add_error("secret", str(error))
                return cleaned
            self.new_secret = secret
        if plugin == "key-auth":
            cleaned["identifier"] = credential.identifier
        return cleaned


class RotateForm(forms.Form):
    """Asks for the next secret of a credential and for how long the present one stays good."""

    secret = forms.CharField(
        label="New secret",
        required=False,
        strip=False,
        max_length=4096,
        widget=forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password"}),
        help_text="Leave empty to have one made. It is shown once, on the next page.",
    )
    keep = forms.ChoiceField(
        label="Present secret stays good for",
        choices=KEEP_CHOICES,
        initial="86400",
        help_text="Both are accepted in the meantime, so that callers can change over.",
    )
