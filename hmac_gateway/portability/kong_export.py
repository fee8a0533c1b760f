"""Rows → a document in the form of kong.yml 3.0, and the list of what it does not hold.

Called by `hmac_export` and by Kong's `GET /config`. What an entity looks like is the admin API's (`kong_entity`); here
are the nesting, the order, the secrets where they were asked for, and `_ignore` for what Kong has no word for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.db.models import Q
from django.utils import timezone

from .. import sealing
from ..admin_api.kong_credentials import clear_secret
from ..admin_api.kong_entities import ENTITIES
from ..admin_api.kong_entity import Doc, Entity, Fields, examine, key_of
from ..admin_api.kong_lookup import rows_of
from ..admin_api.kong_plugins import PLUGINS_ENTITY, available
from ..admin_api.kong_spec import Spec, default_of, is_uuid
from ..crypto import CannotOpen
from ..plugins.fields import with_fields
from . import kong_beyond
from .apisix_export import Exported
from .kong_head import SECTION
from .kong_match import derived_id, label_of_row
from .kong_problems import flat
from .kong_read import NESTED
from .kong_unheld import OUR_PLUGINS, OURS
from .report import Refused, Skipped

#: The order in the file. Children stand below their parent where they have only one.
_LISTS: Final = ("services", "routes", "consumers", "upstreams", "plugins")
#: Stamps that mean nothing elsewhere.
_LEFT: Final = frozenset(["updated_at"])
_APISIX: Final = "written in APISIX's dialect"
_SITE: Final = "only the console has them"


def export_document(with_secrets: bool = False) -> Exported:
    """The configuration as a document. Secrets are masked unless `with_secrets`.

    Raises Refused where a secret cannot be opened.
    """
    return _Export(with_secrets).run()


class _Export:
    def __init__(self, with_secrets: bool) -> None:
        self._open = with_secrets
        self._now = timezone.now()
        self._skipped: list[Skipped] = []
        self._unseen: list[Skipped] = []
        self._beyond: dict[str, dict[str, Any]] = {}
        #: Names and documents of what is in the file, by the row's key.
        self._names: dict[str, dict[str, str]] = {name: {} for name in ENTITIES}
        self._docs: dict[str, dict[str, Doc]] = {name: {} for name in ENTITIES}
        self._lists: dict[str, list[Doc]] = {name: [] for name in ENTITIES}
        self._whole: list[Doc] = []
        self._templates = False

    def run(self) -> Exported:
        for entity in ENTITIES.values():
            for row in _rows(entity).order_by("created_at", "pk").iterator(chunk_size=400):
                self._take(entity, row)
        self._skipped.extend(self._unheld())
        # Passwords stand in the file as they are.
        document: Doc = {"_format_version": "3.0", "_transform": True}
        if self._beyond or self._whole or self._templates:
            # Also says that texts such as ${{ env "NAME" }} stand for themselves.
            told: Doc = {name: self._beyond[name] for name in ENTITIES if name in self._beyond}
            if self._whole:
                told["entities"] = {"plugins": self._whole}
            document["_ignore"] = [{SECTION: {"version": 1, **told}}]
        document |= {name: self._lists[name] for name in _LISTS if self._lists[name]}
        return Exported(document, self._skipped, self._unseen)

    def _take(self, entity: Entity, row: Any) -> None:
        what = f"{entity.name.removesuffix('s')} {label_of_row(entity, row)}"
        try:
            shown = self._opened(entity, row)
            beyond = kong_beyond.of(entity, row, self._open, self._now)
        except CannotOpen as error:
            raise Refused([f"{what}: its secret cannot be opened: {error}"]) from None
        key = str(row.pk)
        if not is_uuid(key):
            # Kong's ids are UUIDs.
            beyond["key"] = key
            shown["id"] = derived_id(entity.name, f"{SECTION}:{key}")
        if why := self._why_not(entity, shown):
            self._skipped.append(Skipped(what, why))
            return
        above = {name: key_of(shown, name) for name in entity.parents if name in shown and key_of(shown, name)}
        doc = _bare(entity.fields_for(shown), shown)
        if entity.name == "jwt_secrets":
            # decK asks for it, default or not.
            doc["algorithm"] = shown["algorithm"]
        if entity is PLUGINS_ENTITY and (ours := _take_ours(doc)):
            beyond["config"] = ours
        parents = {name: text for name, text in above.items() if text is not None and entity.parents[name] in ENTITIES}
        self._place(entity, doc, parents)
        self._docs[entity.name][key] = doc
        name = shown.get(entity.key) if entity.key else None
        self._names[entity.name][key] = name if isinstance(name, str) and not is_uuid(name) else shown["id"]
        if beyond:
            self._beyond.setdefault(entity.name, {})[shown["id"]] = _sorted(beyond)
        self._templates = self._templates or _has_templates(doc)
        self._skipped.extend(_lost(entity, what, row))
        self._unseen.extend(_unseen(entity, what, row, beyond))

    def _opened(self, entity: Entity, row: Any) -> Doc:
        shown = entity.show(row)
        # A target's has fractions; the order inside of a second is the file's.
        shown["created_at"] = int(shown["created_at"])
        if not self._open:
            return shown
        for name in entity.secrets:
            if shown[name] is not None:
                shown[name] = clear_secret(row)
        if entity is PLUGINS_ENTITY:
            shown["config"] = with_fields(shown["config"], sealing.secrets_of(row.name, row.config))
        return shown

    def _why_not(self, entity: Entity, shown: Doc) -> str:
        for name, above in entity.parents.items():
            key = key_of(shown, name)
            if above in ENTITIES and key is not None and key not in self._docs[above]:
                return f"its {name} {key} is not written"
        if entity is PLUGINS_ENTITY and shown["name"] not in available():
            return "the plugin is not available here (PLUGINS_AVAILABLE)"
        _, errors = examine(entity, shown)
        if errors:
            said = "; ".join(f"{field}: {reason}" for field, reason in flat(errors))
            return f"Kong's form cannot hold it: {said}"
        return ""

    def _place(self, entity: Entity, doc: Doc, parents: dict[str, str]) -> None:
        whole = entity is PLUGINS_ENTITY and doc["name"] in OUR_PLUGINS
        if len(parents) == 1 and not whole:
            ((field, key),) = parents.items()
            parent = self._docs[entity.parents[field]][key]
            assert entity.name in NESTED[entity.parents[field]]
            parent.setdefault(entity.name, []).append(doc)
            return
        for field, key in parents.items():
            doc[field] = self._names[entity.parents[field]][key]
        (self._whole if whole else self._lists[entity.name]).append(doc)

    # --- what is not in the file ---

    def _unheld(self) -> Iterator[Skipped]:
        for label, kind, where in _UNHELD:
            rows = apps.get_model(label)._default_manager.filter(**where)
            why = _APISIX if "dialect" in where else _SITE if "this_site" in where else "only APISIX has them"
            for row in rows.order_by("pk"):
                yield Skipped(f"{_rule(row) or kind} {row.pk}", why)
        consumers: Any = apps.get_model("hmac_consumers.Consumer")._default_manager.filter(dialect="apisix")
        for row in consumers.exclude(pk__in=list(self._docs["consumers"])).order_by("username"):
            yield Skipped(f"consumer {row}", _APISIX)
        credentials: Any = apps.get_model("hmac_consumers.Credential")._default_manager.filter(dialect="apisix")
        for row in credentials.select_related("consumer").order_by("consumer__username", "plugin", "public_id"):
            yield Skipped(f"consumer {row.consumer}, {row.plugin} {row.public_id or 'of its own'}", _APISIX)
        plugins: Any = apps.get_model("hmac_proxy.Plugin")._default_manager.filter(dialect="apisix")
        for row in plugins.exclude(consumer=None).select_related("consumer").order_by("consumer__username", "name"):
            yield Skipped(f"consumer {row.consumer}, plugin {row.name}", _APISIX)


def _rows(entity: Entity) -> Any:
    """The rows of Kong's dialect, and the consumers on whom one of them hangs."""
    rows = rows_of(entity)
    if entity.name == "consumers":
        model: Any = apps.get_model(entity.model)
        hung = model._default_manager.filter(
            Q(credentials__dialect="kong") | Q(plugins__dialect="kong") | Q(acls__isnull=False)
        )
        return rows.filter(Q(dialect="kong") | Q(pk__in=hung.values("pk")))
    return rows.filter(dialect="kong") if entity.model == "hmac_consumers.Credential" else rows


#: Rows that the file never holds: model, what people call one, and which.
_UNHELD: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("hmac_proxy.Service", "service", {"dialect": "apisix"}),
    ("hmac_proxy.Route", "route", {"dialect": "apisix"}),
    ("hmac_proxy.Route", "route for this site", {"dialect__in": ["kong"], "this_site": True}),
    ("hmac_proxy.Upstream", "upstream", {"dialect": "apisix", "inline": False}),
    ("hmac_proxy.PluginConfig", "plugin config", {}),
    ("hmac_consumers.ConsumerGroup", "consumer group", {}),
)


def _rule(row: Any) -> str:
    return "global rule" if getattr(row, "is_global", False) else ""


def _take_ours(doc: Doc) -> Doc:
    """The options of a plugin that Kong does not know, taken out of its configuration."""
    config = doc.get("config", {})
    ours = OURS.get(doc["name"], OURS["*"]) if doc["name"] not in OUR_PLUGINS else frozenset()
    found = {name: config.pop(name) for name in list(config) if name in ours}
    if not config:
        doc.pop("config", None)
    return found


def _unseen(entity: Entity, what: str, row: Any, beyond: Doc) -> Iterator[Skipped]:
    if entity is PLUGINS_ENTITY and row.name in OUR_PLUGINS:
        yield Skipped(what, "Kong does not have the plugin")
    names = [name for name in beyond if name not in _QUIET]
    names += [f"config.{name}" for name in beyond.get("config", ())]
    if names:
        yield Skipped(f"{what}, {', '.join(sorted(names))}", "Kong has no word for it")


def _lost(entity: Entity, what: str, row: Any) -> Iterator[Skipped]:
    if entity.name == "consumers":
        if row.user_id is not None:
            yield Skipped(f"{what}, user", "users of this site are not exported")
        if row.group_id is not None:
            yield Skipped(f"{what}, group {row.group_id}", "only APISIX has consumer groups")
    if entity.name == "routes" and row.plugin_config_id is not None:
        yield Skipped(f"{what}, plugin config {row.plugin_config_id}", "only APISIX has them")
    if entity.name in ("routes", "services") and row.upstream_id and row.upstream.inline:
        yield Skipped(f"{what}, upstream", "written inside of it, as only APISIX has it")


#: What stands in `_ignore` and changes nothing for Kong.
_QUIET: Final = frozenset(["key", "public_id", "extra", "dialect", "config"])


# --- a document without what goes without saying ---


def _bare(fields: Fields, shown: Doc) -> Doc:
    """The document in the order of its fields, without defaults and what means nothing elsewhere."""
    found: Doc = {}
    for name, spec in fields.items():
        value = shown.get(name)
        if name in _LEFT or spec.kind == "foreign" or value is None and default_of(spec) is None:
            continue
        value = _without_defaults(spec, value)
        if value != default_of(spec) or spec.required and spec.default is None and spec.kind != "record":
            found[name] = value
    return found


def _without_defaults(spec: Spec, value: Any) -> Any:
    if spec.kind == "record" and isinstance(value, dict):
        known = _bare(spec.fields, value)
        rest = {name: _sorted(item) for name, item in sorted(value.items()) if name not in spec.fields}
        return {**known, **rest}
    return _sorted(value)


def _sorted(value: Any) -> Any:
    """The value with the keys of its maps in order: databases do not keep the order in which they were sent."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _has_templates(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_templates, value.values()))
    if isinstance(value, list):
        return any(map(_has_templates, value))
    return isinstance(value, str) and "${{" in value
