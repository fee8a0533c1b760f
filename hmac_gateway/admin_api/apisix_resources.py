"""APISIX's resources, each a short description: its schema, which columns its keys fill, what hangs below it.

`apisix_store` works on any of them; nothing here talks to HTTP. To add a resource, add a description to RESOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ..core.errors import ConfigError
from ..expr import compile_expr
from ..validators import is_network
from . import apisix_schemas as schemas
from . import apisix_upstreams as upstreams
from .apisix_credentials import ConsumerPluginsPart, CredentialPart
from .apisix_plugins import PluginsPart
from .apisix_upstreams import GROUP_LABEL, NodesPart, TargetPart
from .errors import invalid, refuse
from .fields import Doc, Field, flag, labels, one_or_many, plain, reference, timeout
from .writing import Writer


class Part(Protocol):
    """What a document says that does not stand in plain columns of the row."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The document's keys it is about."""

    def check(self, doc: Doc) -> None:
        """Raise ApiError for a wrong document; no database."""

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Set columns, and write what the row refers to. Runs under the version lock."""

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Write rows that refer to this one. Runs under the version lock."""

    def show(self, row: Any) -> Doc:
        """The keys as the rows have them, secrets masked."""


@dataclass(frozen=True, slots=True)
class Use:
    """Rows that refer to a resource, which keeps it from being deleted: `model.column` points at it."""

    kind: str
    model: str
    column: str
    named: str = "pk"


@dataclass(frozen=True, slots=True)
class Link:
    """A key that holds another object's id."""

    key: str
    kind: str
    model: str
    scope: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind of object under /apisix/admin/.

    `model` is a model's label and `scope` the rows of it that are meant; `key` the column that holds the id in
    addresses; `unsupported` names keys of APISIX that we refuse, with the reason; `own` are columns that a document
    cannot express and that a new row of this resource gets. New rows have `prefix` before their id, where two
    resources share a table; rows without it are found as well.
    """

    name: str
    kind: str
    model: str
    schema: Mapping[str, Any]
    fields: tuple[Field, ...]
    parts: tuple[Part, ...] = ()
    key: str = "id"
    key_field: str = "id"
    prefix: str = ""
    scope: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    uses: tuple[Use, ...] = ()
    exclusive: tuple[tuple[str, str], ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    prefetch: tuple[str, ...] = ()
    rules: tuple[Callable[[Doc], None], ...] = ()
    delete_words: str = ""
    refused_methods: frozenset[str] = frozenset()

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Keys that the parts look after."""
        return tuple(key for part in self.parts for key in part.keys)


def check_vars(doc: Doc) -> None:
    """Refuse (ApiError) a `vars` expression that does not compile."""
    try:
        compile_expr(doc.get("vars", []))
    except ConfigError as error:
        raise refuse(f"failed to validate the 'vars' expression: {error}") from None


def check_addresses(doc: Doc) -> None:
    """Refuse (ApiError) what is neither an address nor a network; APISIX's schema has a pattern of each kind."""
    text = "object matches none of the required"
    if "remote_addr" in doc and not is_network(doc["remote_addr"]):
        raise invalid(f'property "remote_addr" validation failed: {text}')
    for number, address in enumerate(doc.get("remote_addrs", ()), 1):
        if not is_network(address):
            raise invalid(f'property "remote_addrs" validation failed: failed to validate item {number}: {text}')


_ID: Final = reference("id", "id")
_COMMON: Final = (plain("name"), plain("desc"), labels(GROUP_LABEL))
_LUA: Final = "is not supported: this gateway runs no Lua"
_SERVICE: Final = Link("service_id", "service", "hmac_proxy.Service")
_UPSTREAM: Final = Link("upstream_id", "upstream", "hmac_proxy.Upstream", {"inline": False})
_PLUGIN_CONFIG: Final = Link("plugin_config_id", "plugin config", "hmac_proxy.PluginConfig", {"is_global": False})
_GROUP: Final = Link("group_id", "consumer group", "hmac_consumers.ConsumerGroup")
_APISIX: Final = {"dialect": "apisix"}
_TARGET: Final = ("plugins", "upstream__nodes")

ROUTES: Final = Resource(
    name="routes",
    kind="route",
    model="hmac_proxy.Route",
    schema=schemas.ROUTE,
    scope=_APISIX,
    fields=(
        _ID,
        *_COMMON,
        one_or_many("paths", "uri", "uris", "paths"),
        one_or_many("hosts", "host", "hosts"),
        one_or_many("remote_addrs", "remote_addr", "remote_addrs"),
        plain("methods", default=[]),
        plain("priority", default=0),
        plain("vars", default=[]),
        flag("status", "enabled"),
        timeout(),
        reference("service_id", "service_id"),
        reference("plugin_config_id", "plugin_config_id"),
    ),
    parts=(TargetPart(), PluginsPart("route")),
    links=(_UPSTREAM, _SERVICE, _PLUGIN_CONFIG),
    exclusive=(("host", "hosts"), ("remote_addr", "remote_addrs")),
    unsupported={"filter_func": _LUA, "script": _LUA, "script_id": _LUA},
    rules=(check_addresses, check_vars),
    prefetch=_TARGET,
)

SERVICES: Final = Resource(
    name="services",
    kind="service",
    model="hmac_proxy.Service",
    schema=schemas.SERVICE,
    scope=_APISIX,
    fields=(
        _ID,
        *_COMMON,
        plain("hosts", default=[]),
        plain("path_prefix"),
        plain("strip_path_prefix", default=True),
        plain("version"),
        flag("status", "enabled"),
    ),
    parts=(TargetPart(), PluginsPart("service")),
    links=(_UPSTREAM,),
    uses=(Use("route", "hmac_proxy.Route", "service"),),
    delete_words="can not delete this service directly,",
    unsupported={"script": _LUA},
    prefetch=_TARGET,
)

UPSTREAMS: Final = Resource(
    name="upstreams",
    kind="upstream",
    model="hmac_proxy.Upstream",
    schema=schemas.UPSTREAM,
    scope={**_APISIX, "inline": False},
    fields=(_ID, *upstreams.FIELDS),
    unsupported=upstreams.UNSUPPORTED,
    parts=(NodesPart(),),
    uses=(Use("route", "hmac_proxy.Route", "upstream"), Use("service", "hmac_proxy.Service", "upstream")),
    delete_words="can not delete this upstream,",
    prefetch=("nodes",),
)

CONSUMERS: Final = Resource(
    name="consumers",
    kind="consumer",
    model="hmac_consumers.Consumer",
    schema=schemas.CONSUMER,
    scope={"username__isnull": False},
    key="username",
    key_field="username",
    fields=(plain("username"), plain("desc"), labels(GROUP_LABEL), reference("group_id", "group_id")),
    parts=(ConsumerPluginsPart(),),
    links=(_GROUP,),
    prefetch=("plugins", "credentials"),
    refused_methods=frozenset(["POST", "PATCH"]),
)

CREDENTIALS: Final = Resource(
    name="credentials",
    kind="credential",
    model="hmac_consumers.Credential",
    schema=schemas.CREDENTIAL,
    scope={"public_id__isnull": False},
    key="public_id",
    fields=(reference("id", "public_id"), *_COMMON),
    parts=(CredentialPart(),),
    refused_methods=frozenset(["POST", "PATCH"]),
)

PLUGIN_CONFIGS: Final = Resource(
    name="plugin_configs",
    kind="plugin config",
    model="hmac_proxy.PluginConfig",
    schema=schemas.BUNDLE,
    scope={"is_global": False},
    fields=(_ID, *_COMMON),
    parts=(PluginsPart("bundle"),),
    uses=(Use("route", "hmac_proxy.Route", "plugin_config"),),
    delete_words="can not delete this plugin config,",
    prefetch=("plugins",),
    refused_methods=frozenset(["POST"]),
)

CONSUMER_GROUPS: Final = Resource(
    name="consumer_groups",
    kind="consumer group",
    model="hmac_consumers.ConsumerGroup",
    schema=schemas.BUNDLE,
    fields=(_ID, *_COMMON),
    parts=(PluginsPart("group"),),
    uses=(Use("consumer", "hmac_consumers.Consumer", "group", named="username"),),
    delete_words="can not delete this consumer group,",
    prefetch=("plugins",),
    refused_methods=frozenset(["POST"]),
)

GLOBAL_RULES: Final = Resource(
    name="global_rules",
    kind="global rule",
    model="hmac_proxy.PluginConfig",
    schema=schemas.GLOBAL_RULE,
    scope={"is_global": True},
    own={"is_global": True},
    # APISIX's own examples have a plugin config 1 and a global rule 1.
    prefix="global.",
    fields=(reference("id", "id", "global."),),
    parts=(PluginsPart("bundle", "global."),),
    prefetch=("plugins",),
    refused_methods=frozenset(["POST"]),
)

#: What stands right below /apisix/admin/. Credentials stand below a consumer.
RESOURCES: Final = {
    resource.name: resource
    for resource in (ROUTES, SERVICES, UPSTREAMS, CONSUMERS, PLUGIN_CONFIGS, CONSUMER_GROUPS, GLOBAL_RULES)
}
