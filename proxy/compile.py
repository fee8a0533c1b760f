"""Rows of routes, services, upstreams and plugins → routers. Called by `hmac_gateway.runtime`.

Imports `hmac_gateway` and this app's plain values. A row that cannot be compiled is a ConfigError that names it;
the runtime then keeps the last good snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from hmac_gateway.conf import conf
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.expr import compile_expr
from hmac_gateway.gate import NO_RULES, Pipeline, Rule, RuleSet, Step, compile_plugin, pipeline
from hmac_gateway.plugins import public_api
from hmac_gateway.routing import Route, Router, host_of

from .exchange import Keepalive, Target, Timeouts
from .plan import Forward, Node, Upstream

Row = Mapping[str, Any]
Rows = Mapping[str, Mapping[Any, Row]]
Changes = Mapping[str, set[Any]]

#: What `runtime` must read for us, by model name.
MODELS: Final = ("upstream", "node", "service", "pluginconfig", "route", "plugin")

#: nginx's and APISIX's default for connecting, sending and reading, in seconds.
DEFAULT_TIMEOUT: Final = 60.0


class Compiler:
    """The routers of one configuration, kept current by `update`."""

    def __init__(self) -> None:
        # Validating and freezing a plugin is the costly part: kept while its row is the same object.
        self._plugins: dict[Any, tuple[Row, Step | Rule]] = {}
        self.routes = Router()
        self.site = Router()
        self.upstreams: dict[str, Upstream] = {}
        self.global_pipelines: dict[str, Pipeline] = {}
        self.overrides: dict[str, dict[str, Rule | None]] = {}

    def update(self, rows: Rows, now: float) -> None:
        """Compile everything that has not expired at `now` (Unix seconds). Raises ConfigError naming the row."""
        alive = {name: {key: row for key, row in table.items() if not _over(row, now)} for name, table in rows.items()}
        self._plugins = {key: kept for key, kept in self._plugins.items() if alive["plugin"].get(key) is kept[0]}
        nodes: dict[str, list[Row]] = {}
        for row in alive["node"].values():
            nodes.setdefault(row["upstream_id"], []).append(row)
        upstreams: dict[str, Upstream] = {
            key: _named(f"upstream {key}", _upstream, row, nodes.get(key, []))
            for key, row in alive["upstream"].items()
            if row["enabled"]
        }
        # One that has expired or is switched off leaves its routes without any: 503.
        known = dict.fromkeys(rows["upstream"]) | upstreams
        places: dict[str, list[Row]] = {}
        for row in alive["plugin"].values():
            places.setdefault(row["place"], []).append(row)
        bundles = [row for row in alive["pluginconfig"].values() if row["is_global"] and row["enabled"]]
        everywhere = [made for row in bundles for made in self._at(places, "bundle", row["id"]).values() if made]
        first = pipeline(step for step in everywhere if isinstance(step, Step))
        first_rules = [rule for rule in everywhere if isinstance(rule, Rule)]
        routes: list[Route] = []
        site: list[Route] = []
        for key, row in alive["route"].items():
            if not row["enabled"]:
                continue
            service = alive["service"].get(row["service_id"])
            if row["service_id"] and (service is None or not service["enabled"]):
                # Kong: a disabled service's routes do not exist; an expired one is gone.
                continue
            bundle = alive["pluginconfig"].get(row["plugin_config_id"])
            if row["plugin_config_id"] and (bundle is None or not bundle["enabled"]):
                # Without the plugins of one that has expired or is switched off the route would stand open.
                continue
            made: dict[str, Step | Rule | None] = {}
            if service is not None:
                made |= self._at(places, "service", service["id"])
            if row["plugin_config_id"]:
                made |= self._at(places, "bundle", row["plugin_config_id"])
            made |= self._at(places, "route", key)
            # What is None was switched off: it hides the less specific one and does nothing itself.
            steps = first + pipeline(step for step in made.values() if isinstance(step, Step))
            own = {name: rule for name, rule in made.items() if not isinstance(rule, Step)}
            rules = RuleSet.of(first_rules, own) if first_rules or own else NO_RULES
            compiled = _named(f"route {key}", _route, row, service, steps, rules, known)
            (site if row["this_site"] else routes).append(compiled)
        self.routes, self.site = Router(routes), Router(site)
        self.upstreams = upstreams
        self.global_pipelines = {"apisix": first}
        self.overrides = {
            place: {name: rule for name, rule in self._at(places, kind, key).items() if not isinstance(rule, Step)}
            for place in places
            for kind, _, key in [place.partition(":")]
            if kind in ("consumer", "group") and " " not in place
        }

    def _at(self, places: Mapping[str, list[Row]], kind: str, key: str) -> dict[str, Step | Rule | None]:
        """Plugins at one place, by name; None for one that `_meta.disable` switches off."""
        return {row["name"]: self._made(row) for row in places.get(f"{kind}:{key}", ()) if row["enabled"]}

    def _made(self, row: Row) -> Step | Rule | None:
        meta = row["config"].get("_meta") or {}
        if meta.get("disable"):
            return None
        kept = self._plugins.get(row["id"])
        if kept is None:
            kept = (row, _named(f"plugin {row['name']} at {row['place']}", _compile_plugin, row))
            self._plugins[row["id"]] = kept
        return kept[1]


def _over(row: Row, now: float) -> bool:
    expires = row.get("expires_at")
    return expires is not None and expires.timestamp() <= now


def next_expiry(rows: Rows, now: float) -> float | None:
    """When the next object expires, in Unix seconds; None when none will."""
    times = (
        row["expires_at"].timestamp() for table in rows.values() for row in table.values() if row.get("expires_at")
    )
    return min((time for time in times if time > now), default=None)


def _named(what: str, build: Any, *args: Any) -> Any:
    """Run one object's compilation; whatever it refuses is reported under the object's name."""
    try:
        return build(*args)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error.field}", error.given, error.allowed) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(what, str(error)[:200], "a row that can be compiled") from error


def _compile_plugin(row: Row) -> Step | Rule:
    return compile_plugin(
        row["name"],
        row["config"],
        row["dialect"],
        priority=row["priority"],
        max_body=conf.max_body,
        place=row["place"],
    )


def _timeouts(*rows: Row | None) -> Timeouts:
    def first(field: str) -> float:
        for row in rows:
            if row is not None and row[field] is not None:
                return float(row[field])
        return DEFAULT_TIMEOUT

    return Timeouts(first("timeout_connect"), first("timeout_send"), first("timeout_read"))


def _upstream(row: Row, node_rows: Iterable[Row]) -> Upstream:
    tls = row["scheme"] in ("https", "grpcs")
    settings = row["tls"] or {}
    name = host_of(row["upstream_host"]).strip("[]") if row["pass_host"] == "rewrite" else None
    certificate, private_key = settings.get("client_cert_file"), settings.get("client_key_file")
    nodes = [
        Node(
            key=f"{node['host']}:{node['port']}",
            host=node["host"],
            port=node["port"],
            weight=node["weight"],
            priority=node["priority"],
            target=Target(
                node["host"],
                node["port"],
                tls=tls,
                server_name=name or None,
                verify=bool(settings.get("verify", True)),
                ca_file=settings.get("ca_file"),
                client_cert=(certificate, private_key) if certificate and private_key else None,
            ),
        )
        for node in node_rows
        if node["enabled"]
    ]
    # Weight 0 is no traffic, unless nothing else is left; then all are alike (APISIX).
    nodes = [node for node in nodes if node.weight > 0] or [replace(node, weight=1) for node in nodes]
    nodes.sort(key=lambda node: (-node.priority, node.key))
    keepalive = row["keepalive"] or {}
    retries = row["retries"]
    return Upstream(
        id=row["id"],
        nodes=tuple(nodes),
        scheme=row["scheme"],
        type=row["type"],
        hash_on=row["hash_on"],
        key=row["key"],
        pass_host=row["pass_host"],
        upstream_host=row["upstream_host"],
        retries=len(nodes) - 1 if retries is None else retries,
        retry_timeout=row["retry_timeout"] or 0.0,
        timeouts=_timeouts(row),
        keepalive=Keepalive(
            size=int(keepalive.get("size", 320)),
            idle_timeout=float(keepalive.get("idle_timeout", 60)),
            requests=int(keepalive.get("requests", 1000)),
        ),
    )


def _methods(row: Row) -> frozenset[str]:
    """On this site a view answers HEAD as it answers GET (RFC 9110 9.3.2), so that one protects the other."""
    methods = frozenset(row["methods"])
    return methods | {"HEAD"} if row["this_site"] and "GET" in methods else methods


def _wire(path: str) -> str:
    """A path as requests have it: bytes as text."""
    return path if path.isascii() else path.encode().decode("latin-1")


def _route(
    row: Row, service: Row | None, steps: Pipeline, rules: RuleSet, upstreams: Mapping[str, Upstream | None]
) -> Route:
    if row["dialect"] != "apisix":
        raise ConfigError("dialect", row["dialect"], "apisix; routes of other dialects are not matched yet")
    prefix = ""
    paths = tuple(map(_wire, row["paths"]))
    if service is not None and service["path_prefix"]:
        base = _wire(service["path_prefix"]).rstrip("/")
        paths = tuple(base + path for path in paths)
        prefix = base if service["strip_path_prefix"] else ""
    upstream_id = row["upstream_id"] or (service["upstream_id"] if service is not None else None)
    if upstream_id and upstream_id not in upstreams:
        raise ConfigError("upstream", upstream_id, "the id of an existing upstream")
    upstream = upstreams[upstream_id] if upstream_id else None
    timeouts = Timeouts(DEFAULT_TIMEOUT, DEFAULT_TIMEOUT, DEFAULT_TIMEOUT) if upstream is None else upstream.timeouts
    # Each of the three by itself: the route's, else the service's, else the upstream's.
    if any(source is not None and source[name] is not None for source in (row, service) for name in _TIMEOUT_FIELDS):
        chain = dict(zip(_TIMEOUT_FIELDS, (timeouts.connect, timeouts.send, timeouts.read), strict=True))
        timeouts = _timeouts(row, service, chain)
    local = next((rule for rule in rules.all if rule.plugin.name == public_api.name), None)
    if local is not None:
        paths = public_api.paths(local.config, paths)
    return Route(
        id=row["id"],
        name=row["name"],
        service_id=row["service_id"] or "",
        dialect=row["dialect"],
        paths=paths,
        hosts=tuple(row["hosts"] or (service["hosts"] if service is not None else ())),
        methods=_methods(row),
        networks=tuple(ip_network(address, strict=False) for address in row["remote_addrs"]),
        condition=compile_expr(row["vars"]) if row["vars"] else None,
        priority=row["priority"],
        order=(row["created_at"], row["id"]),
        pipeline=steps,
        rules=rules,
        target=Forward(upstream if local is None else None, timeouts, prefix, local),
    )


_TIMEOUT_FIELDS: Final = ("timeout_connect", "timeout_send", "timeout_read")
