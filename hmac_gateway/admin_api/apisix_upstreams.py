"""Upstreams: their columns, their nodes, and those written inside a service or route.

Used by `apisix_resources`. Nodes keep their primary key as long as their host and port stay (the balancer's state
hangs on it). Sources: APISIX's upstream documentation; ports default to 80 or 443 by scheme.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.apps import apps

from ..schema import quoted
from ..validators import hash_key_pattern, tls_problem
from .errors import invalid, refuse
from .fields import Doc, Field, fill, kept, labels, plain, show, timeout
from .writing import Writer

#: Keys of APISIX that an upstream cannot have here, with the reason.
UNSUPPORTED: Final = dict.fromkeys(
    ("discovery_type", "service_name", "discovery_args"),
    "is not supported: upstreams have `nodes`, service discovery is not available",
)

#: The label that holds API7's gateway group.
GROUP_LABEL: Final = "gateway_group_id"

FIELDS: Final[tuple[Field, ...]] = (
    plain("name"),
    plain("desc"),
    labels(GROUP_LABEL),
    plain("type", default="roundrobin"),
    plain("hash_on"),
    plain("key"),
    plain("scheme", default="http"),
    plain("pass_host", default="pass"),
    plain("upstream_host"),
    plain("retries", default=None),
    plain("retry_timeout", default=None),
    timeout(),
    plain("keepalive_pool", "keepalive", default={}),
    plain("checks", default={}),
    plain("tls", default={}),
)


class NodeValue(NamedTuple):
    """What a document says of one node."""

    host: str
    port: int
    weight: int
    priority: int
    metadata: dict[str, Any]


def parse_nodes(nodes: Any, scheme: str) -> list[NodeValue]:
    """The nodes of a document, from a map `{"host:port": weight}` or a list. Raises ApiError."""
    default = 443 if scheme in ("https", "grpcs") else 80
    if isinstance(nodes, dict):
        found = [NodeValue(*_address(address, default), weight, 0, {}) for address, weight in nodes.items()]
    else:
        found = [
            NodeValue(*_place(node, default), node["weight"], node.get("priority", 0), node.get("metadata", {}))
            for node in nodes
        ]
    seen: set[tuple[str, int]] = set()
    for node in found:
        if (node.host, node.port) in seen:
            raise invalid(f'property "nodes" validation failed: {node.host}:{node.port} is given more than once')
        seen.add((node.host, node.port))
    return found


def _place(node: Doc, default: int) -> tuple[str, int]:
    """Host and port of a node in a list. As APISIX takes it, a port may stand in `host`: `{"host": "a:1980"}`."""
    host = node["host"]
    if "port" not in node and re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]+):[0-9]{1,5}", host):
        return _address(host, default)
    return _bare(host), node.get("port", default)


def _address(address: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?", address)
    if found is None:
        raise invalid(f'property "nodes" validation failed: "{address}" is not "host" or "host:port"')
    port = int(found[2]) if found[2] else default
    if not 1 <= port <= 65535:
        raise refuse(f"invalid port {port}")
    return _bare(found[1]), port


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def check_upstream(doc: Doc) -> None:
    """Refuse (ApiError) what no schema says about an upstream; needs no database."""
    if problem := tls_problem(doc.get("tls", {})):
        raise refuse(problem)
    parse_nodes(doc["nodes"], doc.get("scheme", "http"))
    if doc.get("pass_host") == "rewrite" and not doc.get("upstream_host"):
        raise refuse("`upstream_host` can't be empty when `pass_host` is `rewrite`")
    if doc.get("type") == "chash" and doc.get("hash_on") != "consumer":
        if "key" not in doc:
            raise refuse("missing key")
        if pattern := hash_key_pattern(doc.get("hash_on", "vars"), doc["key"]):
            raise invalid(f"failed to match pattern {quoted(pattern)} with {quoted(doc['key'])}")


def write_nodes(upstream: Any, doc: Doc, writer: Writer) -> None:
    """Make the Node rows of a saved upstream say what the document says. Raises ValidationError."""
    model: Any = apps.get_model("hmac_proxy.Node")
    below = writer.below("hmac_proxy.Node", upstream, upstream=upstream)
    present = {(node.host, node.port): node for node in below}
    wanted = {(value.host, value.port): value for value in parse_nodes(doc["nodes"], upstream.scheme)}
    if gone := [node.pk for place, node in present.items() if place not in wanted]:
        model.objects.filter(pk__in=gone).delete()
    fresh = []
    for place, value in wanted.items():
        node = present.get(place)
        if node is not None and _node_value(node) == value:
            continue
        adding = node is None
        if node is None:
            node = model(upstream=upstream, host=value.host, port=value.port)
        node.weight, node.priority, node.metadata = value.weight, value.priority, value.metadata
        # The upstream was just saved and places are distinct: no query per node.
        node.full_clean(exclude=["upstream"], validate_unique=False, validate_constraints=False)
        if adding:
            fresh.append(node)
        else:
            node.save()
    writer.add(model, fresh)


def _node_value(node: Any) -> NodeValue:
    # A node that the console switched off gets no traffic: weight 0.
    return NodeValue(node.host, node.port, node.weight if node.enabled else 0, node.priority, node.metadata)


def show_nodes(row: Any) -> Doc:
    """The `nodes` key: as sent while it still means what the rows hold, else a list."""
    values = [_node_value(node) for node in row.nodes.all()]
    sent = row.extra.get("nodes") if isinstance(row.extra, dict) else None
    if sent is not None:
        try:
            if sorted(map(repr, parse_nodes(sent, row.scheme))) == sorted(map(repr, values)):
                return {"nodes": sent}
        except Exception:  # `extra` can be edited by hand
            pass
    return {"nodes": [_shown(value) for value in values]}


def _shown(value: NodeValue) -> Doc:
    node: Doc = {"host": value.host, "port": value.port, "weight": value.weight}
    if value.priority:
        node["priority"] = value.priority
    if value.metadata:
        node["metadata"] = value.metadata
    return node


@dataclass(frozen=True)
class NodesPart:
    """The `nodes` of an upstream. The sent form is kept in `extra`, the rows are the truth."""

    keys: tuple[str, ...] = ("nodes",)

    def check(self, doc: Doc) -> None:
        """Refuse a wrong upstream."""
        check_upstream(doc)

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Keep the form."""
        row.extra["nodes"] = doc["nodes"]

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Write the Node rows."""
        write_nodes(row, doc, writer)

    def show(self, row: Any) -> Doc:
        """The `nodes` key."""
        return show_nodes(row)


def write_inline(owner: Any, doc: Doc, writer: Writer) -> Any:
    """Write the upstream that stands inside `owner` and return its row. Raises ValidationError."""
    model: Any = apps.get_model("hmac_proxy.Upstream")
    present = writer.below("hmac_proxy.Upstream", owner, pk=owner.inline_id)
    row = present[0] if present else model(pk=owner.inline_id)
    fill(row, FIELDS, doc)
    row.inline, row.dialect, row.enabled, row.expires_at = True, "apisix", True, None
    row.extra = {**kept(FIELDS, doc), "nodes": doc["nodes"]}
    writer.save(row)
    write_nodes(row, doc, writer)
    return row


def show_inline(row: Any) -> Doc:
    """The document of an upstream that stands inside another object."""
    return {**show(FIELDS, row), **show_nodes(row)}


@dataclass(frozen=True)
class TargetPart:
    """`upstream_id` and `upstream` of a route or service. With both, the id counts (APISIX), the other is kept."""

    keys: tuple[str, ...] = ("upstream_id", "upstream")

    def check(self, doc: Doc) -> None:
        """Refuse a wrong inline upstream; needs no database."""
        if "upstream" in doc:
            check_upstream(doc["upstream"])

    def before_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """Point the row at its upstream, written first: a foreign key needs its row."""
        if doc.keys() & {*self.keys, "service_id"} and getattr(row, "this_site", False):
            # The console's routes for this site have no target; one that gets a target is none any more.
            row.this_site = False
        if "upstream_id" in doc:
            row.upstream_id = str(doc["upstream_id"])
            row.extra["upstream_id"] = doc["upstream_id"]
            if "upstream" in doc:
                row.extra["upstream"] = doc["upstream"]
        elif "upstream" in doc:
            row.upstream = write_inline(row, doc["upstream"], writer)
        else:
            row.upstream = None

    def after_save(self, row: Any, doc: Doc, writer: Writer) -> None:
        """An upstream that was replaced goes by the model's own signal."""

    def show(self, row: Any) -> Doc:
        """One of the two keys, or none; both where both were sent."""
        if row.upstream is None:
            return {}
        if row.upstream.inline and row.upstream_id == row.inline_id:
            return {"upstream": show_inline(row.upstream)}
        sent = row.extra.get("upstream_id")
        if sent is None or str(sent) != row.upstream_id:
            return {"upstream_id": row.upstream_id}
        return {key: row.extra[key] for key in self.keys if key in row.extra}
