"""Rows → a document in the form of APISIX's apisix.yaml, and the list of what it does not hold.

Called by `hmac_export`. What an object looks like is the admin API's (`apisix_store.value_of`); here are the order, the
secrets where they were asked for, and SECTION for what APISIX has no word for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.utils import timezone

from .. import sealing
from ..admin_api import apisix_store as store
from ..admin_api.apisix_resources import (
    CONSUMER_GROUPS,
    CONSUMERS,
    CREDENTIALS,
    GLOBAL_RULES,
    PLUGIN_CONFIGS,
    ROUTES,
    SERVICES,
    UPSTREAMS,
    Resource,
)
from ..admin_api.errors import ApiError
from ..core.credential import MASK
from ..crypto import CannotOpen
from . import beyond
from .apisix_read import SECTION, text_of
from .report import Refused, Skipped

#: What others refer to is looked at first.
_ORDER: Final = (UPSTREAMS, PLUGIN_CONFIGS, CONSUMER_GROUPS, SERVICES, ROUTES, GLOBAL_RULES, CONSUMERS, CREDENTIALS)
#: The order in the file.
_LISTS: Final = ("routes", "services", "upstreams", "plugin_configs", "global_rules", "consumer_groups", "consumers")
_STAMPS: Final = ("create_time", "update_time")
_KONG: Final = "written in Kong's dialect"


@dataclass(slots=True)
class Exported:
    """`document` is made of plain values and goes to `text.dump_yaml`; `skipped` names what is not in it.

    `unseen` is what stands in it where the other gateway does not look.
    """

    document: dict[str, Any]
    skipped: list[Skipped] = field(default_factory=list)
    unseen: list[Skipped] = field(default_factory=list)


def export_document(with_secrets: bool = False) -> Exported:
    """The configuration as a document. Secrets are masked unless `with_secrets`.

    Raises Refused where a secret cannot be opened.
    """
    return _Export(with_secrets).run()


class _Export:
    def __init__(self, with_secrets: bool) -> None:
        self._open = with_secrets
        self._now = timezone.now()
        self._lists: dict[str, list[dict[str, Any]]] = {resource.name: [] for resource in _ORDER}
        self._written: dict[str, set[str]] = {resource.name: set() for resource in _ORDER}
        self._beyond: dict[str, dict[str, Any]] = {}
        self._skipped: list[Skipped] = []

    def run(self) -> Exported:
        for resource in _ORDER:
            for row in self._rows(resource):
                self._take(resource, row)
        self._skipped.extend(self._unheld())
        document: dict[str, Any] = {}
        for name in _LISTS:
            items = self._consumers() if name == "consumers" else self._lists[name]
            if items:
                document[name] = items
        # Also says that texts such as ${{NAME}} stand for themselves.
        document[SECTION] = {"version": 1, **self._beyond}
        return Exported(document, self._skipped)

    def _rows(self, resource: Resource) -> Any:
        rows = apps.get_model(resource.model)._default_manager.filter(**{**resource.scope, "dialect": "apisix"})
        rows = rows.exclude(expires_at__lte=self._now)
        if resource is CREDENTIALS:
            rows = rows.select_related("consumer")
        return rows.order_by("created_at", "pk").prefetch_related(*resource.prefetch).iterator(chunk_size=400)

    def _take(self, resource: Resource, row: Any) -> None:
        name = _id(resource, row)
        try:
            doc = self._document(resource, row)
            more = _sorted(beyond.of(resource, row, self._open, self._now))
        except CannotOpen as error:
            raise Refused([f"{resource.kind} {name}: its secret cannot be opened: {error}"]) from None
        if why := self._why_not(resource, row, doc):
            self._skipped.append(Skipped(f"{resource.kind} {name}", why))
            return
        self._written[resource.name].add(name)
        if resource is CREDENTIALS:
            doc["id"] = f"{row.consumer.username}/credentials/{row.public_id}"
            doc = {"id": doc.pop("id"), **doc}
        self._lists[resource.name].append(doc)
        if more:
            self._beyond.setdefault(resource.name, {})[name] = more
        self._skipped.extend(self._lost(resource, name, row))

    def _document(self, resource: Resource, row: Any) -> dict[str, Any]:
        value = store.value_of(resource, row)
        order = [resource.key_field, *resource.schema["properties"]]
        names = sorted(
            value.keys() - {*_STAMPS}, key=lambda name: (order.index(name) if name in order else len(order), name)
        )
        doc = {name: _sorted(copy.deepcopy(value[name])) for name in names}
        if resource is ROUTES and not any(name in doc for name in _TARGETS):
            # A route of the console that goes to this site; APISIX asks for one of these keys.
            doc["plugins"] = {}
        if self._open:
            self._unmask(resource, row, doc)
        return doc

    @staticmethod
    def _unmask(resource: Resource, row: Any, doc: dict[str, Any]) -> None:
        for plugin in row.plugins.all() if "plugins" in resource.prefetch else ():
            if plugin.dialect == "apisix":
                doc["plugins"][plugin.name].update(sealing.secrets_of(plugin.name, plugin.config))
        holders = []
        if resource is CREDENTIALS:
            holders = [row]
        elif resource is CONSUMERS:
            holders = [own for own in row.credentials.all() if own.public_id is None]
        for holder in holders:
            # Which field is the secret may depend on the others; the admin API has masked it.
            config = doc["plugins"][holder.plugin]
            for name, value in config.items():
                if value == MASK and holder.sealed_secret:
                    config[name] = holder.get_secret()

    def _why_not(self, resource: Resource, row: Any, doc: dict[str, Any]) -> str:
        if resource is CREDENTIALS and row.consumer.username not in self._written[CONSUMERS.name]:
            return f"its consumer {row.consumer} is not written"
        for link in resource.links:
            if link.key in doc and str(doc[link.key]) not in self._written[_TABLES[link.key]]:
                return f"{link.kind} {doc[link.key]}, to which it refers, is not written"
        try:
            store.check(resource, doc)
        except ApiError as error:
            return f"APISIX's form cannot hold it: {text_of(error)}"
        return ""

    def _lost(self, resource: Resource, name: str, row: Any) -> Iterator[Skipped]:
        if resource is CONSUMERS:
            if row.user_id is not None:
                yield Skipped(f"consumer {name}, user", "users of this site are not exported")
            if row.acls.exists():
                yield Skipped(f"consumer {name}, ACL groups", "only Kong has them")
        for plugin in getattr(row, "plugins").all() if "plugins" in resource.prefetch else ():  # noqa: B009
            if plugin.dialect != "apisix":
                yield Skipped(f"{resource.kind} {name}, plugin {plugin.name}", _KONG)

    def _unheld(self) -> Iterator[Skipped]:
        for resource in _ORDER:
            scope = {name: value for name, value in resource.scope.items() if name in ("inline", "is_global")}
            rows = apps.get_model(resource.model)._default_manager.filter(dialect="kong", **scope)
            for row in rows.order_by("pk"):
                if resource is not CREDENTIALS or row.public_id is not None:
                    yield Skipped(f"{resource.kind} {_id(resource, row)}", _KONG)
        nameless = apps.get_model("hmac_consumers.Consumer")._default_manager.filter(dialect="apisix", username=None)
        for row in nameless.order_by("pk"):
            yield Skipped(f"consumer {row}", "it has no username")
        for plugin in apps.get_model("hmac_proxy.Plugin")._default_manager.filter(place="global").order_by("name"):
            yield Skipped(f"global plugin {plugin.name}", _KONG)

    def _consumers(self) -> list[dict[str, Any]]:
        """Consumers, each followed by its credentials: so APISIX has them in its own file."""
        below: dict[str, list[dict[str, Any]]] = {}
        for credential in self._lists[CREDENTIALS.name]:
            below.setdefault(credential["id"].partition("/")[0], []).append(credential)
        found = []
        for consumer in self._lists[CONSUMERS.name]:
            found += [consumer, *below.get(consumer["username"], [])]
        return found


_TARGETS: Final = ("plugins", "upstream", "upstream_id", "service_id", "plugin_config_id")
_TABLES: Final = {
    "upstream_id": UPSTREAMS.name,
    "service_id": SERVICES.name,
    "plugin_config_id": PLUGIN_CONFIGS.name,
    "group_id": CONSUMER_GROUPS.name,
}


def _id(resource: Resource, row: Any) -> str:
    if resource is CREDENTIALS:
        return f"{row.consumer}/{row.public_id}"
    if resource is CONSUMERS:
        return str(row)
    return str(row.pk).removeprefix(resource.prefix)


def _sorted(value: Any) -> Any:
    """The value with the keys of its maps in order: databases do not keep the order in which they were sent."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
