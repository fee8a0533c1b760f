"""Console pages of the engine's own tables. Loaded by Django's admin; plain ModelAdmins."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery, Value
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from .admin_base import EntityAdmin, ReadOnlyAdmin, ShowsSecretsOnce, short_key, shortened, show_once
from .core.errors import ConfigError
from .debugger import as_text, explain_kept
from .models import AdminKey, AuditEvent, Rejection, WorkerStatus
from .runtime import Runtime
from .site import has_tables


@admin.register(AdminKey)
class AdminKeyAdmin(ShowsSecretsOnce, EntityAdmin):
    """Keys to the admin APIs. The key is made here and shown once."""

    list_display = ["name", "role", "enabled", "created_at", "last_used_at"]
    list_filter = ["role", "enabled", "created_at"]
    search_fields = ["name"]
    fields = ["name", "role", "enabled"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        plaintext = "" if change else obj.new_key()
        super().save_model(request, obj, form, change)
        if plaintext:
            show_once(request, f"X-API-KEY of {obj.name}", plaintext)


def audit_fields(event: AuditEvent) -> list[Any]:
    """The names of the fields that an event is about."""
    found = event.changes.get("fields", []) if isinstance(event.changes, dict) else []
    return found if isinstance(found, list) else []


def _told(side: dict[str, Any], name: str) -> str:
    if name not in side:
        return ""
    value = side[name]
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who changed what."""

    list_display = ["at", "actor", "via", "action", "kind", "shown_object", "fields_changed"]
    list_filter = ["action", "via", "entity", "at"]
    search_fields = ["actor", "object_id"]
    # Read as a table instead.
    exclude = ["changes"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "admin_key", "what_changed"]

    @admin.display(description="fields")
    def fields_changed(self, obj: AuditEvent) -> str:
        return shortened(list(map(str, audit_fields(obj))))

    @admin.display(description="admin key")
    def admin_key(self, obj: AuditEvent) -> str:
        return str(obj.changes.get("key", "")) if isinstance(obj.changes, dict) else ""

    @admin.display(description="changes")
    def what_changed(self, obj: AuditEvent) -> str:
        """A table: field, before, after. What the console itself wrote is Django's sentence."""
        changes = obj.changes if isinstance(obj.changes, dict) else {}
        before, after = (changes[side] if isinstance(changes.get(side), dict) else {} for side in ("before", "after"))
        if not before and not after:
            return ", ".join(map(str, audit_fields(obj))) or json.dumps(changes.get("message", ""), ensure_ascii=False)
        rows = format_html_join(
            "",
            "<tr><th>{}</th><td><pre>{}</pre></td><td><pre>{}</pre></td></tr>",
            [(name, _told(before, name), _told(after, name)) for name in audit_fields(obj)],
        )
        secret = "The secret was changed, too." if changes.get("secret") else ""
        head = "<table><thead><tr><th>field</th><th>before</th><th>after</th></tr></thead>"
        return format_html(head + "<tbody>{}</tbody></table>{}", rows, secret)

    @admin.display(description="object id", ordering="object_id")
    def shown_object(self, obj: AuditEvent) -> str:
        return short_key(obj.object_id)

    @admin.display(description="entity", ordering="entity")
    def kind(self, obj: AuditEvent) -> str:
        return obj.entity.rpartition(".")[2]


@admin.register(WorkerStatus)
class WorkerStatusAdmin(ReadOnlyAdmin):
    """Which processes serve, and which configuration."""

    list_display = ["host", "pid", "role", "snapshot_version", "heartbeat_at", "started_at", "troubles"]
    list_filter = ["role"]
    search_fields = ["host"]

    @admin.display(description="problems")
    def troubles(self, obj: WorkerStatus) -> str:
        return "; ".join(map(str, obj.problems)) or "none"


@admin.register(Rejection)
class RejectionAdmin(ReadOnlyAdmin):
    """Refused requests, newest first."""

    list_display = ["when", "status", "reason", "request", "key_id", "route"]
    list_filter = ["reason", "plugin", "status", "lane", "at"]
    search_fields = ["request_id", "path", "key_id", "route_id", "remote_addr", "reason"]
    # Opened by the debugger alone.
    exclude = ["sealed_request"]

    @admin.display(description="at", ordering="at")
    def when(self, obj: Rejection) -> str:
        return format_html('<span class="nowrap">{}</span>', f"{timezone.localtime(obj.at):%Y-%m-%d %H:%M:%S}")

    @admin.display(description="request", ordering="path")
    def request(self, obj: Rejection) -> str:
        return f"{obj.method} {obj.path}"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        name: Any = Value("")
        if has_tables():
            routes = apps.get_model("hmac_proxy", "Route")._default_manager
            name = Subquery(routes.filter(pk=OuterRef("route_id")).values("name")[:1])
        rows = rows.annotate(route_name=name)
        return rows

    @admin.display(description="route", ordering="route_id")
    def route(self, obj: Any) -> str:
        return str(obj.route_name or short_key(obj.route_id))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "explanation"]

    @admin.display(description="why")
    def explanation(self, obj: Rejection) -> str:
        """What the running configuration makes of the request, at the time it came."""
        runtime = Runtime()
        if not runtime.refresh() or runtime.snapshot is None:
            return "; ".join(runtime.problems)
        try:
            report = explain_kept(runtime.snapshot, obj.request_id)
        except ConfigError as error:
            return str(error)
        return format_html('<pre class="hmac-explanation">{}</pre>', as_text(report))
