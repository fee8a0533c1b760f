"""Rows of routes, services, upstreams and plugins → routers. Called by `hmac_gateway.runtime`.

Imports `hmac_gateway` and this app's plain values. A row that cannot be compiled is a ConfigError that names it;
the runtime then keeps the last good snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from hmac_gateway import sealing
from hmac_gateway.conf import conf
from hmac_gateway.core.errors import ConfigError
from hmac_gateway.expr import compile_expr
from hmac_gateway.gate import NO_RULES, Outgoing, OutgoingSet, Pipeline, Rule, RuleSet, Step, compile_plugin, pipeline
from hmac_gateway.plugins import OUTGOING, RULES, public_api, spoken
from hmac_gateway.routing import Route, Router, host_of
from hmac_gateway.routing_kong import Entry, KongRouter

from . import compile_kong
from .exchange import Keepalive, Target, Timeouts
from .plan import Forward, Node, Upstream
from .probes import Checks, compile_checks

logger = logging.getLogger("hmac_gateway.runtime")

Row = Mapping[str, Any]
#: A compiled plugin; None for one that `_meta.disable` switches off.
Made = Step | Rule | Outgoing | None
Rows = Mapping[str, Mapping[Any, Row]]
Changes = Mapping[str, set[Any]]

#: What `runtime` must read for us, by model name.
MODELS: Final = ("upstream", "node", "service", "pluginconfig", "route", "plugin")

#: nginx's and APISIX's default for connecting, sending and reading, in seconds.
DEFAULT_TIMEOUT: Final = 60.0


_NOWHERE: Final = Forward(None, Timeouts(DEFAULT_TIMEOUT, DEFAULT_TIMEOUT, DEFAULT_TIMEOUT))


class Compiler:
    """The routers of one configuration, kept current by `update`."""

    def __init__(self) -> None:
        # Validating and freezing a plugin is the costly part: kept while its row is the same object.
        self._plugins: dict[Any, tuple[Row, Made]] = {}
        self.routes = Router()
        self.site = Router()
        self.upstreams: dict[str, Upstream] = {}
        #: What global rules make of a request that no route fits, by dialect.
        self.elsewhere: dict[str, Route] = {}
        self.overrides: dict[str, dict[str, Rule | None]] = {}
        self.outgoing: dict[str, dict[str, Outgoing | None]] = {}

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
        kong = compile_kong.Upstreams(rows["upstream"], known, upstreams)
        places: dict[str, list[Row]] = {}
        for row in alive["plugin"].values():
            # What was made for streams only is as if absent.
            if compile_kong.serves_http(row["protocols"]):
                places.setdefault(row["place"], []).append(row)
        bundles = [row for row in alive["pluginconfig"].values() if row["is_global"] and row["enabled"]]
        everywhere = [made for row in bundles for made in self._at(places, f"bundle:{row['id']}").values() if made]
        first = pipeline(step for step in everywhere if isinstance(step, Step))
        first_rules = [rule for rule in everywhere if isinstance(rule, Rule)]
        # Of several signatures the most specific one is made: a global one, too, gives way.
        first_outgoing = {made.plugin.name: made for made in everywhere if isinstance(made, Outgoing)}
        self._override(places)
        routes: tuple[list[Route], list[Entry]] = ([], [])
        site: tuple[list[Route], list[Entry]] = ([], [])
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
            apisix_routes, kong_routes = site if row["this_site"] else routes
            if row["dialect"] == "kong":
                entry = _named(f"route {key}", self._kong_route, row, service, places, kong)
                if entry is not None:
                    kong_routes.append(entry)
                continue
            made: dict[str, Made] = {}
            if service is not None:
                made |= self._at(places, f"service:{service['id']}")
            if row["plugin_config_id"]:
                made |= self._at(places, f"bundle:{row['plugin_config_id']}")
            made |= self._at(places, f"route:{key}")
            # What is None was switched off: it hides the less specific one and does nothing itself.
            steps = first + pipeline(step for step in made.values() if isinstance(step, Step))
            own = _rules(made)
            rules = RuleSet.of(first_rules, own) if first_rules or own else NO_RULES
            outgoing = self._outgoing({**first_outgoing, **_outgoing(made)})
            apisix_routes.append(_named(f"route {key}", _route, row, service, steps, rules, known, outgoing))
        self.routes, self.site = (Router(apisix, KongRouter(entries)) for apisix, entries in (routes, site))
        self.upstreams = upstreams
        self.elsewhere = {}
        if first or first_rules:
            self.elsewhere["apisix"] = Route("", (), first, _NOWHERE, rules=RuleSet.of(first_rules, {}))

    def _override(self, places: Mapping[str, list[Row]]) -> None:
        """What consumers and groups have of their own."""
        self.overrides, self.outgoing = {}, {}
        for place in places:
            last = place.rpartition(" ")[2]
            if not last.startswith(("consumer:", "group:")):
                continue
            made = self._at(places, place)
            # Who has some only together with a route or a service is found as well.
            if rules := _rules(made):
                self.overrides[place] = rules
                self.overrides.setdefault(last, {})
            if outgoing := _outgoing(made):
                self.outgoing[place] = outgoing
                self.outgoing.setdefault(last, {})

    def _outgoing(
        self,
        own: Mapping[str, Outgoing | None],
        above: Mapping[str, Outgoing | None] | None = None,
        scopes: tuple[str, ...] = (),
    ) -> OutgoingSet | None:
        """What a route has to look for when it sends; None where nobody has anything."""
        return OutgoingSet(own, above or {}, scopes) if any(own.values()) or self.outgoing else None

    def _kong_route(
        self, row: Row, service: Row | None, places: Mapping[str, list[Row]], upstreams: compile_kong.Upstreams
    ) -> Entry | None:
        """Of each plugin the most specific configuration runs; Kong has nothing that runs in addition."""
        scopes: tuple[str, ...] = (f"route:{row['id']}",)
        if service is not None:
            scopes = (f"service:{service['id']}", *scopes, f"route:{row['id']} service:{service['id']}")
        made: dict[str, Made] = {}
        for scope in ("global", f"bundle:{row['plugin_config_id']}", *scopes):
            if scope in places:
                made |= self._at(places, scope)
        # Together, a route and a service stand above a consumer.
        above = self._at(places, scopes[-1]) if service is not None and scopes[-1] in places else {}
        steps: Pipeline = ()
        rules = NO_RULES
        if made or self.overrides:
            steps = pipeline(step for step in made.values() if isinstance(step, Step))
            rules = RuleSet.of((), _rules(made), _rules(above), scopes)
        outgoing = self._outgoing(_outgoing(made), _outgoing(above), scopes)
        leads_to = None if row["this_site"] else upstreams.of(service, row)
        timeouts, methods = _timeouts(row, service), _methods(row)
        return compile_kong.entry(row, service, steps, rules, leads_to, timeouts, methods, outgoing)

    def _at(self, places: Mapping[str, list[Row]], place: str) -> dict[str, Made]:
        """Plugins at one place, by name; None for one that `_meta.disable` switches off."""
        return {row["name"]: self._made(row) for row in places.get(place, ()) if row["enabled"]}

    def _made(self, row: Row) -> Made:
        meta = row["config"].get("_meta") or {}
        if meta.get("disable"):
            return None
        kept = self._plugins.get(row["id"])
        if kept is None:
            kept = (row, _named(f"plugin {row['name']} at {row['place']}", _compile_plugin, row))
            self._plugins[row["id"]] = kept
        return kept[1]


def _rules(made: Mapping[str, Made]) -> dict[str, Rule | None]:
    """The rules among plugins, with those that are switched off."""
    return {name: rule for name, rule in made.items() if name in RULES and isinstance(rule, Rule | None)}


def _outgoing(made: Mapping[str, Made]) -> dict[str, Outgoing | None]:
    """What signs, in the same way."""
    return {name: one for name, one in made.items() if name in OUTGOING and isinstance(one, Outgoing | None)}


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


def _compile_plugin(row: Row) -> Step | Rule | Outgoing:
    config, secrets = sealing.opened(row["name"], row["config"], f"plugin {row['name']} at {row['place']}")
    return compile_plugin(
        row["name"],
        config,
        spoken(row["name"], row["dialect"], row["legacy"]),
        priority=row["priority"],
        max_body=conf.max_body,
        place=row["place"],
        secrets=secrets,
    )


def _timeouts(*rows: Row | None) -> Timeouts:
    def first(field: str) -> float:
        for row in rows:
            if row is not None and row[field] is not None:
                return float(row[field])
        return DEFAULT_TIMEOUT

    return Timeouts(first("timeout_connect"), first("timeout_send"), first("timeout_read"))


def _upstream(row: Row, node_rows: Iterable[Row]) -> Upstream:
    if row["dialect"] == "kong":
        return compile_kong.upstream(row, node_rows, _timeouts(row))
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
        if node["enabled"] and not node["marked_unhealthy"]
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
        checks=_checks(row),
    )


def _checks(row: Row) -> Checks | None:
    """An upstream's checks. What was written before they were looked at may be wrong; it must not cost the rest."""
    try:
        return compile_checks(row["checks"] or {})
    except ConfigError as error:
        logger.warning("upstream %s is not probed: %s", row["id"], error)
        return None


def _methods(row: Row) -> frozenset[str]:
    """On this site a view answers HEAD as it answers GET (RFC 9110 9.3.2), so that one protects the other."""
    methods = frozenset(row["methods"])
    return methods | {"HEAD"} if row["this_site"] and "GET" in methods else methods


def _wire(path: str) -> str:
    """A path as requests have it: bytes as text."""
    return path if path.isascii() else path.encode().decode("latin-1")


def _route(
    row: Row,
    service: Row | None,
    steps: Pipeline,
    rules: RuleSet,
    upstreams: Mapping[str, Upstream | None],
    outgoing: OutgoingSet | None,
) -> Route:
    if row["dialect"] != "apisix":
        raise ConfigError("dialect", row["dialect"], "apisix or kong")
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
        target=Forward(upstream if local is None else None, timeouts, prefix, local, outgoing=outgoing),
    )


_TIMEOUT_FIELDS: Final = ("timeout_connect", "timeout_send", "timeout_read")
