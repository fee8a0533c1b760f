"""What the admin modules of the three apps share: entity pages, plugin inlines, secrets shown once, read-only tables.

Plain django.contrib.admin underneath, so the pages work in a host's own admin site. Other apps' models are reached by
label.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import flatten
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from . import crypto
from .forms import EntityForm, PluginForm, json_formfield
from .models import AuditEvent

if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[models.Model]
    BaseInline = admin.options.InlineModelAdmin[models.Model, models.Model]
    BaseFormSet = forms.BaseInlineFormSet[models.Model, models.Model, forms.ModelForm[models.Model]]
    BaseTabular = admin.TabularInline[models.Model, models.Model]
    BaseStacked = admin.StackedInline[models.Model, models.Model]
else:
    BaseAdmin = admin.ModelAdmin
    BaseInline = admin.options.InlineModelAdmin
    BaseFormSet = forms.BaseInlineFormSet
    BaseTabular = admin.TabularInline
    BaseStacked = admin.StackedInline

_WAITING = "hmac_gateway_shown_once"
_AFTERWARDS = "hmac_gateway_shown_once_next"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: Fields that every entity page ends with.
MORE_FIELDS = ["labels", "tags", "expires_at", "extra"]
HISTORY_FIELDS = ["created_at", "updated_at", "changed_at_version"]


def folded(title: str, *fields: Any) -> tuple[str, Any]:
    """Return a fieldset that opens on a click."""
    return (title, {"classes": ["collapse"], "fields": list(fields)})


MORE = folded("More", *MORE_FIELDS)
HISTORY = folded("History", *HISTORY_FIELDS)
TIMEOUTS = folded("Timeouts", "timeout_connect", "timeout_send", "timeout_read")


def short_key(key: str) -> str:
    """A key for a table: a UUID's beginning, with the whole to be seen by pointing at it; any other as it is."""
    if not _UUID.fullmatch(key):
        return key
    return format_html('<span title="{}">{}…</span>', key, key.partition("-")[0])


def shortened(items: list[str]) -> str:
    """The first of many, for a table."""
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


class JsonFields:
    """Gives JSON columns the form fields of the console."""

    def formfield_for_dbfield(self, db_field: models.Field[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, models.JSONField):
            return json_formfield(db_field)
        return super().formfield_for_dbfield(db_field, request, **kwargs)  # type: ignore[misc]


class InlineFormSet(BaseFormSet):
    """Keeps the key that was typed for a new parent."""

    def add_fields(self, form: Any, index: int | None) -> None:
        key = self.instance.pk
        # Django empties a new parent's key when it has a default, thinking nobody chose it.
        super().add_fields(form, index)
        self.instance.pk = key


class _KeyedInline:
    """An inline of rows whose key is an ordinary field.

    Django writes the hidden key that tells a form which row it is about only for keys that the inline excludes.
    """

    model: type[models.Model]

    def get_exclude(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        key = self.model._meta.pk.name
        shown = flatten(self.get_fields(request, obj))  # type: ignore[attr-defined]
        return [*(super().get_exclude(request, obj) or ()), *([] if key in shown else [key])]  # type: ignore[misc]


class TabularInline(_KeyedInline, JsonFields, BaseTabular):
    """Rows of a parent's page."""

    form = EntityForm
    formset = InlineFormSet
    extra = 0
    show_change_link = True


class StackedInline(_KeyedInline, JsonFields, BaseStacked):
    """Blocks of a parent's page."""

    form = EntityForm
    formset = InlineFormSet
    extra = 0
    show_change_link = True


def plugin_inline(place: str) -> type[BaseInline]:
    """Return the inline for plugins attached by their foreign key `place` (route, service, consumer, …)."""
    return type(
        f"{place.capitalize()}PluginInline",
        (StackedInline,),
        {
            "model": apps.get_model("hmac_proxy", "Plugin"),
            "fk_name": place,
            "form": PluginForm,
            "fields": ["name", "config", ("dialect", "enabled", "priority")],
        },
    )


class EntityAdmin(JsonFields, BaseAdmin):
    """Page of a configuration object. The key can be chosen once; every change is audited."""

    form = EntityForm
    list_per_page = 50
    show_full_result_count = False
    save_on_top = True

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        fields = ["created_at", "updated_at", "changed_at_version"]
        # A changed key would make a second object.
        return [*fields, *self.readonly_fields, *([self.opts.pk.name] if obj is not None else [])]

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        # There is no history before the first save.
        return [part for part in super().get_fieldsets(request, obj) if obj is not None or part[0] != "History"]

    @admin.display(description="id", ordering="pk")
    def shown_key(self, obj: models.Model) -> str:
        return short_key(str(obj.pk))

    def _audit(self, request: HttpRequest, action: str, instance: models.Model, message: Any) -> None:
        # Django's message names the changed fields, never their values, so no secret can be in it.
        AuditEvent.record(
            actor=request.user.get_username(),
            action=action,
            instance=instance,
            via="console",
            changes={"message": message} if message else {},
        )

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        self._audit(request, "added", obj, message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        self._audit(request, "changed", obj, message)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[models.Model]) -> Any:
        for obj in queryset:
            self._audit(request, "deleted", obj, str(obj))
        return super().log_deletions(request, queryset)


class ReadOnlyAdmin(JsonFields, BaseAdmin):
    """Page of what processes wrote: to be read, not changed."""

    list_per_page = 100
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


def show_once(request: HttpRequest, title: str, plaintext: str) -> None:
    """Keep `plaintext` for the page that shows it once: sealed, in the session, until that page is opened."""
    waiting = request.session.get(_WAITING, [])
    request.session[_WAITING] = [*waiting, [title, crypto.seal(plaintext)]]


class ShowsSecretsOnce(BaseAdmin):
    """An admin whose saves may leave secrets to be shown; leads to a page of their own before going on."""

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_shown_once"
        view = self.admin_site.admin_view(self.shown_once)
        return [path("shown-once/", view, name=name), *super().get_urls()]

    def response_add(
        self, request: HttpRequest, obj: models.Model, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self.by_way_of_secrets(request, super().response_add(request, obj, post_url_continue))

    def response_change(self, request: HttpRequest, obj: models.Model) -> HttpResponse:
        return self.by_way_of_secrets(request, super().response_change(request, obj))

    def by_way_of_secrets(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Return `response`, or the way to the waiting secrets, which goes on where `response` would have led."""
        if not request.session.get(_WAITING):
            return response
        list_url = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist", current_app=self.admin_site.name
        )
        request.session[_AFTERWARDS] = response.get("Location", list_url)
        return HttpResponseRedirect(
            reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_shown_once", current_app=self.admin_site.name)
        )

    def shown_once(self, request: HttpRequest) -> HttpResponse:
        """Show the waiting secrets and forget them. `admin_view` forbids caching the page."""
        secrets = [(title, crypto.open_sealed(sealed)) for title, sealed in request.session.pop(_WAITING, [])]
        context = {
            **self.admin_site.each_context(request),
            "title": "Write these secrets down" if len(secrets) > 1 else "Write this secret down",
            "secrets": secrets,
            "afterwards": request.session.pop(_AFTERWARDS, reverse("admin:index", current_app=self.admin_site.name)),
            "opts": self.opts,
            "media": self.media + forms.Media(js=["hmac_gateway/copy.js"], css={"all": ["hmac_gateway/console.css"]}),
        }
        return TemplateResponse(request, "hmac_gateway/shown_once.html", context)
