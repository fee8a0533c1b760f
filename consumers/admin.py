"""Console pages for consumers, groups and credentials. Loaded by Django's admin; plain ModelAdmins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from hmac_gateway import references
from hmac_gateway.admin_base import (
    HISTORY,
    HISTORY_FIELDS,
    MORE,
    EntityAdmin,
    ShowsSecretsOnce,
    StackedInline,
    TabularInline,
    folded,
    plugin_inline,
    show_once,
)
from hmac_gateway.core.credential import is_reference
from hmac_gateway.crypto import CannotOpen
from hmac_gateway.defaults import new_secret
from hmac_gateway.forms import KEEP_CHOICES, RotateForm, SecretForm
from hmac_gateway.plugins import credential_problem

from .models import Consumer, ConsumerAcl, ConsumerGroup, Credential


class CredentialInline(StackedInline):
    """A consumer's credentials; secrets made here are shown after saving."""

    model = Credential
    form = SecretForm
    fields = [("plugin", "identifier"), "secret", ("enabled", "expires_at")]


class AclInline(TabularInline):
    """A consumer's ACL groups."""

    model = ConsumerAcl
    fields = ["group"]
    show_change_link = False


@admin.register(ConsumerGroup)
class ConsumerGroupAdmin(EntityAdmin):
    """Groups whose plugins apply to all members."""

    list_display = ["id", "name", "enabled", "updated_at"]
    list_filter = ["enabled", "dialect", "created_at"]
    search_fields = ["id", "name", "desc"]
    fieldsets = [(None, {"fields": ["id", "name", "desc", "enabled", "dialect"]}), MORE, HISTORY]
    inlines = [plugin_inline("group")]


@admin.register(Consumer)
class ConsumerAdmin(ShowsSecretsOnce, EntityAdmin):
    """Who may call, with credentials and groups on one page."""

    list_display = ["__str__", "custom_id", "group", "user", "credential_count", "enabled"]
    list_filter = ["enabled", "dialect", ("group", admin.RelatedOnlyFieldListFilter), "created_at"]
    list_select_related = ["group", "user"]
    search_fields = ["username", "custom_id", "name", "desc"]
    autocomplete_fields = ["group"]
    raw_id_fields = ["user"]
    fieldsets = [
        (None, {"fields": ["username", "custom_id", "name", "desc", "enabled", "dialect"]}),
        ("Belongs to", {"fields": ["group", "user"]}),
        MORE,
        folded("History", "id", *HISTORY_FIELDS),
    ]
    inlines = [CredentialInline, AclInline, plugin_inline("consumer")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(credential_total=Count("credentials"))
        return rows

    @admin.display(description="credentials", ordering="credential_total")
    def credential_count(self, obj: Any) -> int:
        return int(obj.credential_total)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        if formset.model is Credential:
            removed = {id(row) for row in formset.deleted_objects}
            for row in formset.forms:
                if row.new_secret and id(row.instance) not in removed:
                    show_once(request, _title(row.instance), row.new_secret)


def _title(credential: Credential) -> str:
    if credential.plugin == "key-auth":
        return f"Key of {credential.consumer} (key-auth)"
    return f"Secret of {credential.consumer}, {credential.plugin} {credential.identifier}"


@admin.register(Credential)
class CredentialAdmin(ShowsSecretsOnce, EntityAdmin):
    """What consumers prove themselves with. Secrets can be set and rotated, not read."""

    form = SecretForm
    change_form_template = "hmac_gateway/credential_change_form.html"
    list_display = ["shown_identifier", "plugin", "consumer", "enabled", "expires_at", "last_used_at"]
    list_filter = ["plugin", "enabled", "expires_at", "last_used_at"]
    list_select_related = ["consumer"]
    search_fields = ["identifier", "name", "public_id", "consumer__username", "consumer__custom_id"]
    autocomplete_fields = ["consumer"]
    fieldsets = [
        (None, {"fields": ["consumer", "plugin", "identifier", "secret", "enabled"]}),
        ("Valid", {"fields": ["secret_stands", "not_before", "expires_at", "previous_secret_until"]}),
        folded("Method's settings", "settings"),
        folded("More", "public_id", "name", "desc", "labels", "tags", "dialect", "extra"),
        folded("History", "id", "last_used_at", *HISTORY_FIELDS),
    ]
    readonly_fields = ["previous_secret_until", "last_used_at", "secret_stands"]

    @admin.display(description="identifier", ordering="identifier")
    def shown_identifier(self, obj: Credential) -> str:
        if obj.plugin == "key-auth" and not is_reference(obj.identifier):
            return "(the key itself)"
        return obj.identifier

    @admin.display(description="secret stands")
    def secret_stands(self, obj: Credential) -> str:
        """A reference and what this process finds there: the gateway's may have another environment."""
        try:
            text = obj.get_secret()
        except CannotOpen:
            return "here, sealed with other keys"
        if not is_reference(text):
            return "here, sealed" if text else "nowhere: there is none"
        try:
            references.resolve(text)
        except references.Unresolved as error:
            return f"in {text}; here, it lets nobody in: {error}"
        return f"in {text}; here, it is found"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.rotate)
        return [path("<path:object_id>/rotate/", view, name="hmac_consumers_credential_rotate"), *super().get_urls()]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if form.new_secret:
            show_once(request, _title(obj), form.new_secret)

    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the next secret, put it in place, and show it once."""
        credential = self.get_object(request, unquote(object_id))
        if not isinstance(credential, Credential):
            raise Http404("no such credential")
        if not self.has_change_permission(request, credential):
            raise PermissionDenied
        form = RotateForm(request.POST or None)
        if credential.plugin == "key-auth":
            # A key is found by its fingerprint: two good keys are two credentials.
            form.fields["keep"] = forms.ChoiceField(
                label=form.fields["keep"].label,
                choices=KEEP_CHOICES[:1],
                help_text="To change over slowly, add a second credential and remove this one later.",
            )
        if request.method == "POST" and form.is_valid():
            secret = form.cleaned_data["secret"] or new_secret()
            seconds = int(form.cleaned_data["keep"])
            unfit = credential_problem(credential.plugin, credential.settings, secret)
            try:
                if unfit is not None:
                    raise ImproperlyConfigured(f"`{unfit.field}`: allowed is {unfit.allowed}.")
                credential.rotate_secret(secret, timezone.now() + timedelta(seconds=seconds) if seconds else None)
            except (ImproperlyConfigured, CannotOpen) as error:
                form.add_error("secret", str(error))
            else:
                credential.save()
                show_once(request, _title(credential), secret)
                self.log_change(request, credential, [{"changed": {"fields": ["Secret"]}}])
                url = reverse(
                    "admin:hmac_consumers_credential_change",
                    args=[credential.pk],
                    current_app=self.admin_site.name,
                )
                return self.by_way_of_secrets(request, HttpResponseRedirect(url))
        context = {
            **self.admin_site.each_context(request),
            "title": "Rotate secret",
            "form": form,
            "original": credential,
            "opts": self.opts,
            "forms_css": static("admin/css/forms.css"),
            "media": forms.Media(css={"all": ["hmac_gateway/console.css"]}),
        }
        return TemplateResponse(request, "hmac_gateway/rotate_secret.html", context)
