"""Console pages for upstreams, services, routes and plugins. Loaded by Django's admin; plain ModelAdmins."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from hmac_gateway.admin_base import (
    HISTORY,
    HISTORY_FIELDS,
    MORE,
    MORE_FIELDS,
    TIMEOUTS,
    EntityAdmin,
    TabularInline,
    folded,
    plugin_inline,
    shortened,
)
from hmac_gateway.forms import PluginForm
from hmac_gateway.plugins import is_mandatory

from .models import AUTH_PLUGINS, Node, Plugin, PluginConfig, Route, Service, Upstream

#: What a plugin may be attached to.
PLACES = ("route", "service", "consumer", "group", "bundle")


class NodeInline(TabularInline):
    """An upstream's nodes."""

    model = Node
    fields = ["host", "port", "weight", "priority", "enabled", "marked_unhealthy"]


class RouteInline(TabularInline):
    """A service's routes, in short; the rest is on their own pages."""

    model = Route
    fields = ["id", "name", "paths", "methods", "enabled"]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name in ("paths", "methods"):
            field.widget.attrs.update({"rows": 2, "cols": 18, "class": ""})
        elif db_field.name in ("id", "name"):
            field.widget.attrs.update({"size": 18, "class": ""})
        return field


@admin.register(Upstream)
class UpstreamAdmin(EntityAdmin):
    """Sets of servers that answer for each other."""

    list_display_links = ["shown_key", "name"]
    list_display = ["shown_key", "name", "type", "scheme", "pass_host", "node_count", "enabled", "updated_at"]
    list_filter = ["type", "scheme", "enabled", "dialect", "created_at"]
    search_fields = ["id", "name", "desc", "nodes__host"]
    fieldsets = [
        (None, {"fields": ["id", "name", "desc", "enabled", "dialect"]}),
        ("Balancing", {"fields": ["type", "hash_on", "key", "retries", "retry_timeout"]}),
        ("Towards the nodes", {"fields": ["scheme", "pass_host", "upstream_host"]}),
        TIMEOUTS,
        folded("Connections and health", "keepalive", "checks", "tls"),
        MORE,
        HISTORY,
    ]
    inlines = [NodeInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(node_total=Count("nodes", distinct=True))
        return rows

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        rows, may_repeat = super().get_search_results(request, queryset, search_term)
        if request.path.endswith("/autocomplete/"):
            # Written inside one service or route: nobody else may refer to it.
            rows = rows.filter(inline=False)
        return rows, may_repeat

    @admin.display(description="nodes", ordering="node_total")
    def node_count(self, obj: Any) -> int:
        return int(obj.node_total)


@admin.register(Node)
class NodeAdmin(EntityAdmin):
    """Single servers, across upstreams."""

    list_display = ["__str__", "upstream", "weight", "priority", "enabled", "updated_at"]
    list_filter = ["enabled", "created_at"]
    list_select_related = ["upstream"]
    search_fields = ["host", "upstream__id", "upstream__name"]
    autocomplete_fields = ["upstream"]
    fieldsets = [
        (None, {"fields": ["upstream", "host", "port", "weight", "priority", ("enabled", "marked_unhealthy")]}),
        folded("More", "metadata", "tags"),
        folded("History", "id", *HISTORY_FIELDS),
    ]


class WithPlugins(EntityAdmin):
    """A page with plugins on it, which says what several that authenticate mean."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        found = form.instance.plugins.filter(enabled=True, name__in=AUTH_PLUGINS)
        names = [plugin.name for plugin in found if is_mandatory(plugin.config, plugin.dialect)]
        if len(names) > 1:
            text = f"{', '.join(names)}: callers must pass all of them, as the same consumer."
            messages.warning(request, f"Several authentication plugins on {form.instance}. {text}")


@admin.register(Service)
class ServiceAdmin(WithPlugins):
    """Applications behind the gateway."""

    list_display_links = ["shown_key", "name"]
    list_display = ["shown_key", "name", "goes_to", "route_count", "version", "dialect", "enabled", "updated_at"]
    list_filter = ["enabled", "dialect", "created_at"]
    list_select_related = ["upstream"]
    search_fields = ["id", "name", "desc", "host"]
    autocomplete_fields = ["upstream"]
    fieldsets = [
        (None, {"fields": ["id", "name", "desc", "version", "enabled", "dialect"]}),
        ("Goes to", {"fields": ["upstream", ("protocol", "host", "port"), "path", "retries"]}),
        ("Matching", {"fields": ["hosts", "path_prefix", "strip_path_prefix"]}),
        TIMEOUTS,
        MORE,
        HISTORY,
    ]
    inlines = [RouteInline, plugin_inline("service")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(route_total=Count("routes"))
        return rows

    @admin.display(description="goes to")
    def goes_to(self, obj: Service) -> str:
        if obj.upstream is not None:
            return str(obj.upstream)
        port = f":{obj.port}" if obj.port else ""
        return f"{obj.protocol or 'http'}://{obj.host}{port}{obj.path}" if obj.host else "nothing yet"

    @admin.display(description="routes", ordering="route_total")
    def route_count(self, obj: Any) -> int:
        return int(obj.route_total)


@admin.register(Route)
class RouteAdmin(WithPlugins):
    """Which calls go where."""

    list_display_links = ["shown_key", "name"]
    list_display = ["shown_key", "name", "shown_paths", "shown_methods", "target", "priority", "dialect", "enabled"]
    list_filter = ["enabled", "this_site", "dialect", ("service", admin.RelatedOnlyFieldListFilter), "created_at"]
    list_select_related = ["service", "upstream"]
    search_fields = ["id", "name", "desc", "paths"]
    autocomplete_fields = ["service", "upstream", "plugin_config"]
    fieldsets = [
        (None, {"fields": ["id", "name", "desc", "enabled", "dialect"]}),
        ("Matches", {"fields": ["paths", "hosts", "methods", "priority"]}),
        ("Goes to", {"fields": ["service", "upstream", "this_site", "plugin_config"]}),
        folded("Further conditions", "headers", "vars", "remote_addrs", "protocols"),
        folded("Kong's ways", "regex_priority", "strip_path", "preserve_host", "path_handling"),
        TIMEOUTS,
        MORE,
        HISTORY,
    ]
    inlines = [plugin_inline("route")]

    @admin.display(description="paths")
    def shown_paths(self, obj: Route) -> str:
        return shortened(obj.paths) or "any"

    @admin.display(description="methods")
    def shown_methods(self, obj: Route) -> str:
        return shortened(obj.methods) or "all"

    @admin.display(description="goes to")
    def target(self, obj: Route) -> str:
        if obj.this_site:
            return "this site"
        return str(obj.upstream or obj.service or "nothing")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not obj.this_site and obj.service is None and obj.upstream is None:
            messages.warning(request, f"Route {obj} goes nowhere: calls are answered by its plugins, or with 503.")


@admin.register(PluginConfig)
class PluginConfigAdmin(WithPlugins):
    """Bundles of plugins, and global rules."""

    list_display = ["id", "name", "is_global", "plugin_names", "enabled", "updated_at"]
    list_filter = ["is_global", "enabled", "created_at"]
    search_fields = ["id", "name", "desc"]
    fieldsets = [(None, {"fields": ["id", "name", "desc", "is_global", "enabled"]}), MORE, HISTORY]
    inlines = [plugin_inline("bundle")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("plugins")

    @admin.display(description="plugins")
    def plugin_names(self, obj: PluginConfig) -> str:
        return shortened([plugin.name for plugin in obj.plugins.all()]) or "none"


@admin.register(Plugin)
class PluginAdmin(EntityAdmin):
    """Every attached plugin, wherever it is."""

    form = PluginForm
    list_display = ["name", "shown_place", "instance_name", "dialect", "enabled"]
    list_filter = ["name", "enabled", "dialect", "legacy", "created_at"]
    list_select_related = list(PLACES)
    search_fields = ["name", "instance_name", "place", "route__name", "service__name", "consumer__username"]
    autocomplete_fields = list(PLACES)
    fieldsets = [
        (None, {"fields": ["name", "instance_name", "dialect", "config", "enabled"]}),
        (
            "Attached to",
            {
                "description": "Nothing chosen: every route of Kong's dialect.",
                "fields": list(PLACES),
            },
        ),
        folded("Order and protocols", "priority", "protocols", "legacy"),
        folded("More", "desc", *MORE_FIELDS),
        folded("History", "id", *HISTORY_FIELDS),
    ]

    @admin.display(description="attached to", ordering="place")
    def shown_place(self, obj: Plugin) -> str:
        found = [(place, getattr(obj, place)) for place in PLACES]
        return ", ".join(f"{place} {held}" for place, held in found if held is not None) or "every route"
