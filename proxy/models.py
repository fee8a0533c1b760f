"""WHERE calls go: upstreams and their nodes, services, routes, and the plugins attached to all of them.

Written by the console, the admin APIs and the importer; read by the compile step. Imports `hmac_gateway`, never the
consumers app: relations go by label.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from hmac_gateway import validators
from hmac_gateway.conf import conf
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.defaults import http_and_https, new_key
from hmac_gateway.entities import Entity, KeyedEntity, Versioned, are_keys_known, refuse_taken
from hmac_gateway.expr import compile_expr
from hmac_gateway.models import ConfigVersion

from .probes import compile_checks

SCHEMES = ("http", "https", "grpc", "grpcs")
BALANCERS = ("roundrobin", "chash", "least_conn", "ewma")
HASH_ON = {
    "apisix": ("vars", "header", "cookie", "consumer", "vars_combinations"),
    "kong": ("none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"),
}
ROUTE_PROTOCOLS = (*SCHEMES, "tcp", "tls", "tls_passthrough", "udp")
#: These prove who the caller is. On a consumer their secrets are credentials; as plugins they stand on routes.
AUTH_PLUGINS = ("hmac-auth", "key-auth", "basic-auth", "jwt-auth", "jwt", "multi-auth")


def _choices(*values: str) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


class NamedEntity(KeyedEntity):
    """A keyed entity whose name is unique in Kong's dialect (there it stands for the id) and free in APISIX's."""

    derived = frozenset(["name_slot"])
    derived_from = frozenset(["name", "dialect"])

    name_slot = models.CharField(max_length=330, unique=True, blank=True, editable=False)

    class Meta(KeyedEntity.Meta):
        abstract = True

    def derive(self) -> None:
        self.name_slot = f"kong:{self.name}" if self.dialect == "kong" and self.name else f"id:{self.pk}"

    def clean(self) -> None:
        super().clean()
        self.derive()
        kind = self._meta.verbose_name
        refuse_taken(self, "name_slot", "name", f"`name`: got {self.name!r}, a {kind} of this name exists already.")


class Upstream(NamedEntity):
    """A set of nodes that answer for each other, and how calls are spread over them.

    An upstream written inside a service or route (`inline`) has its owner's
    `inline_id` as key and goes with it.
    """

    # As KeyedEntity's, but longer: an inline one is named after its owner.
    id = models.CharField(
        primary_key=True,
        max_length=80,
        default=new_key,
        help_text=f"{validators.KEY_RULE}.",
    )
    inline = models.BooleanField(default=False, editable=False)
    type = models.CharField(
        "balancing",
        max_length=16,
        choices=_choices(*BALANCERS),
        default="roundrobin",
        help_text="How a node is chosen.",
    )
    hash_on = models.CharField(
        max_length=32,
        choices=_choices(*dict.fromkeys([*HASH_ON["apisix"], *HASH_ON["kong"]])),
        blank=True,
        default="",
        help_text="For chash: what decides on the node.",
    )
    key = models.CharField(
        "hash key", max_length=256, blank=True, default="", help_text="For chash: the variable, header or cookie."
    )
    scheme = models.CharField(max_length=8, choices=_choices(*SCHEMES), default="http")
    pass_host = models.CharField(
        max_length=8,
        choices=[("pass", "pass: the client's"), ("node", "node: the node's"), ("rewrite", "rewrite: upstream host")],
        default="pass",
        help_text="Which Host header the nodes get.",
    )
    upstream_host = models.CharField(max_length=256, blank=True, default="")
    retries = models.PositiveIntegerField(
        null=True, blank=True, help_text="Further nodes to try; empty: all of them, 0: none."
    )
    retry_timeout = models.FloatField(null=True, blank=True, help_text="Seconds in all; empty or 0: no limit.")
    timeout_connect = models.FloatField(null=True, blank=True, help_text="Seconds.")
    timeout_send = models.FloatField(null=True, blank=True, help_text="Seconds.")
    timeout_read = models.FloatField(null=True, blank=True, help_text="Seconds.")
    keepalive = models.JSONField(default=dict, blank=True, help_text="size, idle_timeout, requests")
    checks = models.JSONField("health checks", default=dict, blank=True, help_text="active, passive")
    tls = models.JSONField("TLS", default=dict, blank=True)

    class Meta(NamedEntity.Meta):
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(type__in=BALANCERS), name="hmac_proxy_upstream_type"),
            models.CheckConstraint(condition=Q(scheme__in=SCHEMES), name="hmac_proxy_upstream_scheme"),
            models.CheckConstraint(
                condition=Q(pass_host__in=["pass", "node"]) | (Q(pass_host="rewrite") & ~Q(upstream_host="")),
                name="hmac_proxy_upstream_pass_host",
                violation_error_message="`upstream_host` can't be empty when `pass_host` is `rewrite`",
            ),
        ]

    def clean(self) -> None:
        super().clean()
        problems = validators.Problems()
        key = self.pk.removeprefix("service:").removeprefix("route:") if self.inline else self.pk
        try:
            validators.validate_key(key)
        except ValidationError as error:
            problems.say("id", f"`id`: {error.messages[0]}")
        if self.pass_host == "rewrite" and not self.upstream_host:
            problems.say("upstream_host", "`upstream_host` can't be empty when `pass_host` is `rewrite`")
        if self.upstream_host:
            # Kong's host patterns are the form that may carry a port.
            validators.check_hosts(problems, "upstream_host", [self.upstream_host], "kong")
        if self.hash_on and self.hash_on not in HASH_ON.get(self.dialect, ()):
            problems.add("hash_on", self.hash_on, "one of " + ", ".join(HASH_ON[self.dialect]))
        if self.type == "chash" and self.dialect == "apisix" and self.hash_on != "consumer" and not self.key:
            problems.say("key", f"`key` is required when `type` is `chash` and `hash_on` is `{self.hash_on or 'vars'}`")
        elif self.type == "chash" and self.dialect == "apisix":
            pattern = validators.hash_key_pattern(self.hash_on, self.key)
            if pattern is not None:
                problems.add("key", self.key, f"what matches {pattern}")
        if self.retry_timeout is not None and not 0 <= self.retry_timeout < float("inf"):
            problems.add("retry_timeout", self.retry_timeout, "0 or more seconds")
        _check_timeouts(problems, self)
        for name, value in self.keepalive.items():
            if name not in ("size", "idle_timeout", "requests"):
                problems.add("keepalive", name, "size, idle_timeout, requests")
            elif isinstance(value, bool) or not isinstance(value, int | float) or value < (name != "idle_timeout"):
                least = "a number, at least 0" if name == "idle_timeout" else "a whole number, at least 1"
                problems.add("keepalive", {name: value}, least)
        if problem := validators.tls_problem(self.tls):
            problems.say("tls", problem)
        misshapen = {name: self.checks[name] for name in ("active", "passive") if name in self.checks}
        misshapen = {name: value for name, value in misshapen.items() if not isinstance(value, dict)}
        if misshapen:
            problems.add("checks", misshapen, "a JSON object")
        elif self.dialect == "apisix":
            try:
                compile_checks(self.checks)
            except ConfigError as error:
                problems.add("checks", self.checks, error.allowed)
        problems.raise_if_any()


class Node(Versioned):
    """One server of an upstream."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="nodes")
    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField(default=80)
    weight = models.PositiveIntegerField(default=1, help_text="Share of the calls; 0: none.")
    priority = models.IntegerField(default=0, help_text="Lower ones are used when all higher ones failed.")
    enabled = models.BooleanField(default=True)
    marked_unhealthy = models.BooleanField(
        default=False, help_text="Gets no calls until it is marked healthy again, whatever its weight."
    )
    metadata = models.JSONField(default=dict, blank=True)
    tags = models.JSONField(default=list, blank=True, validators=[validators.validate_tags])

    class Meta(Versioned.Meta):
        ordering = ["-priority", "created_at", "host", "port"]
        constraints = [
            models.UniqueConstraint(
                fields=["upstream", "host", "port"],
                name="hmac_proxy_one_node",
                violation_error_message="The upstream has this node already.",
            ),
            models.CheckConstraint(
                condition=Q(port__gte=1, port__lte=65535),
                name="hmac_proxy_node_port",
                violation_error_message="`port`: allowed is 1 to 65535.",
            ),
            models.CheckConstraint(condition=Q(weight__gte=0), name="hmac_proxy_node_weight"),
            models.CheckConstraint(condition=~Q(host=""), name="hmac_proxy_node_host"),
        ]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def mark(self, *, healthy: bool) -> None:
        """Say by hand whether this node may get calls (Kong: `PUT …/healthy`, `…/unhealthy`).

        Every worker acts on it within a second. The mark stays, restarts included, until it is set again.
        """
        if self.marked_unhealthy is healthy:
            self.marked_unhealthy = not healthy
            self.save(update_fields=["marked_unhealthy"])

    @property
    def health(self) -> str:
        """What Kong's health endpoint says: UNHEALTHY when marked so, else HEALTHY, or HEALTHCHECKS_OFF without checks.

        Kong's checks are kept and not run: what is not marked counts as healthy.
        """
        if self.marked_unhealthy:
            return "UNHEALTHY"
        return "HEALTHY" if checks_are_on(self.upstream.checks) else "HEALTHCHECKS_OFF"

    def clean(self) -> None:
        super().clean()
        problems = validators.Problems()
        if self.host and not validators.is_host(self.host):
            problems.add("host", self.host, "a host name or an IP address, without scheme and port")
        if not 1 <= self.port <= 65535:
            problems.add("port", self.port, "1 to 65535")
        if self.weight < 0:
            problems.add("weight", self.weight, "0 or more")
        problems.raise_if_any()


def checks_are_on(checks: dict[str, Any]) -> bool:
    """Whether `healthchecks` of Kong's form ask for any check: one that is off has zeros (spec of its entity)."""
    active, passive = checks.get("active") or {}, checks.get("passive") or {}
    numbers = [(active.get(state) or {}).get("interval") for state in ("healthy", "unhealthy")]
    numbers += [value for state in ("healthy", "unhealthy") for value in (passive.get(state) or {}).values()]
    return any(isinstance(number, int | float) and number > 0 for number in numbers)


class UpstreamOwner(NamedEntity):
    """What services and routes share: an upstream, referred to or written inside them."""

    upstream = models.ForeignKey(Upstream, on_delete=models.PROTECT, null=True, blank=True, related_name="%(class)ss")
    timeout_connect = models.FloatField(null=True, blank=True, help_text="Seconds.")
    timeout_send = models.FloatField(null=True, blank=True, help_text="Seconds.")
    timeout_read = models.FloatField(null=True, blank=True, help_text="Seconds.")

    class Meta(NamedEntity.Meta):
        abstract = True

    @property
    def inline_id(self) -> str:
        """The key of the upstream written inside this object; a key that a user chose never holds a colon."""
        return f"{self._meta.model_name}:{self.pk}"


class Service(UpstreamOwner):
    """An application behind the gateway: an upstream (APISIX), or one address (Kong)."""

    protocol = models.CharField(max_length=16, choices=_choices(*SCHEMES), blank=True, default="")
    host = models.CharField(
        max_length=253, blank=True, default="", help_text="Kong: a host name, or the name of an upstream."
    )
    port = models.PositiveIntegerField(null=True, blank=True)
    path = models.CharField(max_length=4096, blank=True, default="", help_text="Kong: put before every path.")
    hosts = models.JSONField(default=list, blank=True, help_text="For routes that name none.")
    path_prefix = models.CharField(
        max_length=4096, blank=True, default="", help_text="API7: stands before the paths of all its routes."
    )
    strip_path_prefix = models.BooleanField(default=True, help_text="Whether the upstream gets paths without it.")
    retries = models.PositiveIntegerField(null=True, blank=True, help_text="Kong: further tries.")
    version = models.CharField(max_length=64, blank=True, default="")

    class Meta(NamedEntity.Meta):
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(port__isnull=True) | Q(port__gte=1, port__lte=65535),
                name="hmac_proxy_service_port",
                violation_error_message="`port`: allowed is 1 to 65535.",
            ),
            models.CheckConstraint(condition=Q(protocol__in=["", *SCHEMES]), name="hmac_proxy_service_protocol"),
        ]

    def clean(self) -> None:
        super().clean()
        problems = validators.Problems()
        if self.host and not validators.is_host(self.host):
            problems.add("host", self.host, "a host name or an IP address, without scheme and port")
        if self.port is not None and not 1 <= self.port <= 65535:
            problems.add("port", self.port, "1 to 65535")
        if self.host and self.upstream_id:
            problems.say("host", "`host`: leave it empty when `upstream` is given; a service goes to one of them.")
        for field in ("path", "path_prefix"):
            if value := getattr(self, field):
                validators.check_paths(problems, field, [value], "")
        if self.retries is not None and not 0 <= self.retries <= 32767:
            problems.add("retries", self.retries, "0 to 32767")
        validators.check_hosts(problems, "hosts", self.hosts, self.dialect)
        _check_timeouts(problems, self)
        problems.raise_if_any()


class PluginConfig(KeyedEntity):
    """APISIX's named bundle of plugins that routes refer to, or one of its global rules."""

    is_global = models.BooleanField("global rule", default=False, help_text="Runs on every route of APISIX's dialect.")

    class Meta(KeyedEntity.Meta):
        verbose_name = "plugin config"
        ordering = ["id"]


class Route(UpstreamOwner):
    """Which calls go where. A route goes to a service, an upstream of its own, or this site's own views."""

    service = models.ForeignKey(Service, on_delete=models.PROTECT, null=True, blank=True, related_name="routes")
    this_site = models.BooleanField(
        default=False, help_text="Protects this site's own addresses; nothing is forwarded."
    )
    plugin_config = models.ForeignKey(
        PluginConfig, on_delete=models.PROTECT, null=True, blank=True, related_name="routes"
    )
    paths = models.JSONField(
        default=list, blank=True, help_text="/exact or /prefix* (APISIX); /prefix or ~/regex (Kong). One per line."
    )
    hosts = models.JSONField(default=list, blank=True, help_text="One per line, *.example.com for all below.")
    methods = models.JSONField(default=list, blank=True, help_text="One per line; none: all.")
    headers = models.JSONField(default=dict, blank=True, help_text='Kong: {"name": ["value", …]}')
    vars = models.JSONField(default=list, blank=True, help_text='APISIX: [["arg_version", "==", "2"], …]')
    remote_addrs = models.JSONField(default=list, blank=True, help_text="Addresses or networks, one per line.")
    protocols = models.JSONField(default=http_and_https, blank=True, help_text="One per line.")
    priority = models.IntegerField(default=0, help_text="Among routes with the same path the highest is tried first.")
    regex_priority = models.IntegerField(default=0, help_text="Kong: the same among regular expressions.")
    strip_path = models.BooleanField(default=False, help_text="Kong: forward without the matched prefix.")
    preserve_host = models.BooleanField(default=False, help_text="Kong: forward the client's Host.")
    path_handling = models.CharField(max_length=2, choices=_choices("v0", "v1"), default="v0")

    class Meta(NamedEntity.Meta):
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(this_site=False) | Q(service__isnull=True, upstream__isnull=True),
                name="hmac_proxy_route_target",
                violation_error_message="A route for this site has neither `service` nor `upstream`.",
            ),
            models.CheckConstraint(condition=Q(path_handling__in=["v0", "v1"]), name="hmac_proxy_route_handling"),
        ]

    def clean(self) -> None:
        super().clean()
        problems = validators.Problems()
        if self.this_site and (self.service_id or self.upstream_id):
            problems.say("this_site", "`this_site`: a route for this site has neither `service` nor `upstream`.")
        if self.plugin_config is not None and self.plugin_config.is_global:
            problems.say("plugin_config", "`plugin_config`: a global rule runs on every route by itself.")
        validators.check_paths(problems, "paths", self.paths, self.dialect)
        validators.check_hosts(problems, "hosts", self.hosts, self.dialect)
        validators.check_methods(problems, "methods", self.methods)
        validators.check_headers(problems, "headers", self.headers)
        try:
            compile_expr(self.vars)
        except ConfigError as error:
            problems.say("vars", str(error))
        validators.check_addresses(problems, "remote_addrs", self.remote_addrs)
        validators.check_choices(problems, "protocols", self.protocols, ROUTE_PROTOCOLS)
        if self.dialect == "apisix" and not self.paths:
            problems.add("paths", self.paths, "at least one path")
        # Kong counts SNIs as well; they are kept among the fields as sent.
        criteria = (self.methods, self.hosts, self.headers, self.paths, self.extra.get("snis"))
        if self.dialect == "kong" and not any(criteria):
            problems.say(None, "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis'")
        _check_timeouts(problems, self)
        problems.raise_if_any()


class Plugin(Entity):
    """One plugin attached somewhere: to a route, service, consumer, group or bundle; to nothing: global (Kong)."""

    derived = frozenset(["place"])
    derived_from = frozenset(
        f"{name}{end}" for name in ("route", "service", "consumer", "group", "bundle") for end in ("", "_id")
    )

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64)
    instance_name = models.CharField(max_length=256, unique=True, null=True, blank=True)
    config = models.JSONField(default=dict, blank=True)
    legacy = models.BooleanField(
        default=False, help_text="Kong 0.x: its statuses, words and grammar. Set by the old admin API."
    )
    priority = models.IntegerField(null=True, blank=True, help_text="In place of the plugin's own; higher runs first.")
    protocols = models.JSONField(default=list, blank=True, help_text="Kong: one per line; none: all.")
    route = models.ForeignKey(Route, on_delete=models.CASCADE, null=True, blank=True, related_name="plugins")
    service = models.ForeignKey(Service, on_delete=models.CASCADE, null=True, blank=True, related_name="plugins")
    consumer = models.ForeignKey(
        "hmac_consumers.Consumer", on_delete=models.CASCADE, null=True, blank=True, related_name="plugins"
    )
    group = models.ForeignKey(
        "hmac_consumers.ConsumerGroup", on_delete=models.CASCADE, null=True, blank=True, related_name="plugins"
    )
    bundle = models.ForeignKey(PluginConfig, on_delete=models.CASCADE, null=True, blank=True, related_name="plugins")
    # Non-null, since NULLs are distinct in unique constraints and MariaDB has no partial indexes.
    place = models.CharField(max_length=400, blank=True, editable=False)

    class Meta(Entity.Meta):
        ordering = ["name", "place"]
        constraints = [
            models.UniqueConstraint(
                fields=["name", "place"],
                name="hmac_proxy_one_plugin_per_place",
                violation_error_message="This plugin is attached there already.",
            ),
            models.CheckConstraint(condition=~Q(name="") & ~Q(place=""), name="hmac_proxy_plugin_named"),
        ]

    def __str__(self) -> str:
        return self.instance_name or self.name

    def derive(self) -> None:
        self.instance_name = self.instance_name or None
        parts = [
            f"{kind}:{key}"
            for kind, key in (
                ("route", self.route_id),
                ("service", self.service_id),
                ("consumer", self.consumer_id),
                ("group", self.group_id),
                ("bundle", self.bundle_id),
            )
            if key
        ]
        self.place = " ".join(parts) or "global"

    def seal(self) -> None:
        # Imported late: the engine's plugins are not needed to load the models.
        from hmac_gateway import sealing

        config = sealing.sealed(self.name, self.config)
        if config is not self.config:
            # Makes the canary on the first secret.
            ConfigVersion.sealed()
            self.config = config

    def clean(self) -> None:
        super().clean()
        self.derive()
        problems = validators.Problems()
        self._check_config(problems)
        self._check_group(problems)
        validators.check_choices(problems, "protocols", self.protocols, ROUTE_PROTOCOLS)
        if self.consumer_id and self.name in AUTH_PLUGINS:
            problems.say(
                "name", f"`name`: {self.name} cannot stand on a consumer; give the consumer a credential instead."
            )
        if self.dialect == "apisix" and self.place.count(" "):
            problems.say(None, "In APISIX's dialect a plugin is attached to one object only.")
        if self.dialect == "apisix" and self.place == "global":
            problems.say(None, "In APISIX's dialect a global plugin stands in a plugin config that is a global rule.")
        if self.bundle is not None and self.bundle.is_global:
            twin = Plugin._default_manager.filter(name=self.name, bundle__is_global=True).exclude(pk=self.pk)
            if other := twin.exclude(bundle=self.bundle).first():
                rule = str(other.bundle_id).removeprefix("global.")
                problems.say("name", f"`name`: {self.name} is in the global rule {rule} already.")
        problems.raise_if_any()
        if are_keys_known():
            return
        twin = Plugin._default_manager.filter(name=self.name, place=self.place).exclude(pk=self.pk)
        if twin.exists():
            raise ValidationError({"name": f"`name`: {self.name} is attached there already."})

    def _check_group(self, problems: validators.Problems) -> None:
        from hmac_gateway.plugins import limit_count

        group = self.config.get("group") if isinstance(self.config, dict) else None
        if self.name != limit_count.name or not isinstance(group, str) or not group:
            return
        others = Plugin._default_manager.filter(name=self.name, config__group=group).exclude(pk=self.pk)
        for other in others:
            if not limit_count.same_group(self.config, other.config):
                words = f"{limit_count.MISMATCH}; group {group!r} has another at {other.place}."
                problems.say("config", f"`config`: {words}")
                return

    def _check_config(self, problems: validators.Problems) -> None:
        # Imported late: the engine's plugins are not needed to load the models.
        from hmac_gateway import sealing
        from hmac_gateway.plugins import ALL, multi_auth, spoken, validate_config

        available = conf.plugins_available
        known = sorted(ALL if available is None else set(ALL) & set(available))
        if self.name not in known:
            problems.add("name", self.name, "one of " + ", ".join(known))
        else:
            try:
                config = sealing.checkable(self.name, self.config)
                validate_config(self.name, config, spoken(self.name, self.dialect, self.legacy))
            except (ConfigError, ImproperlyConfigured) as error:
                # A name that the dialect has not got is the name's fault.
                wrong_name = isinstance(error, ConfigError) and error.field == "name"
                problems.say("name" if wrong_name else "config", str(error))
                return
            for inner in multi_auth.methods(self.config) if self.name == multi_auth.name else ():
                if inner not in known:
                    problems.add("config", inner, "one of " + ", ".join(known))


def _check_timeouts(problems: validators.Problems, row: Upstream | UpstreamOwner) -> None:
    names = ("timeout_connect", "timeout_send", "timeout_read")
    validators.check_positive(problems, [(name, getattr(row, name)) for name in names])


@receiver(post_save, sender=Service)
@receiver(post_save, sender=Route)
def drop_replaced_upstream(instance: UpstreamOwner, using: str, raw: bool, **kwargs: Any) -> None:
    """Delete the upstream that was written inside `instance` once it refers to another, or to none."""
    inline = Upstream._default_manager.using(using).filter(inline=True, pk=instance.inline_id)
    inline = inline.exclude(pk=instance.upstream_id or "")
    # Asked first: deleting nothing would bump the version all the same.
    if not raw and inline.exists():
        inline.delete()


@receiver(post_delete, sender=Service)
@receiver(post_delete, sender=Route)
def drop_owned_upstream(instance: UpstreamOwner, using: str, **kwargs: Any) -> None:
    """Delete the upstream that was written inside `instance` together with it."""
    inline = Upstream._default_manager.using(using).filter(inline=True, pk=instance.inline_id)
    if inline.exists():
        inline.delete()
