"""What APISIX's admin API accepts, as JSON Schema, with API7's additions. Read by `apisix_resources`.

Source: APISIX 3.18, by its documentation and tests. A property without a description is APISIX's own. Plugins'
schemas are the plugins' (`plugins.PLUGINS`).
"""

from __future__ import annotations

from typing import Any, Final

from ..validators import METHODS

Schema = dict[str, Any]

ID: Final[Schema] = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 64, "pattern": r"^[a-zA-Z0-9-_.]+$"},
        {"type": "integer", "minimum": 1},
    ]
}
NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}
DESC: Final[Schema] = {"type": "string", "maxLength": 256}
LABELS: Final[Schema] = {
    "type": "object",
    "patternProperties": {".*": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"\S"}},
}
PLUGINS: Final[Schema] = {"type": "object"}
HOST: Final[Schema] = {"type": "string", "pattern": r"^\*$|^\*?[0-9a-zA-Z-._\[\]:]+$"}
SECONDS: Final[Schema] = {"type": "number", "exclusiveMinimum": 0}
TIMEOUT: Final[Schema] = {
    "type": "object",
    "properties": {"connect": SECONDS, "send": SECONDS, "read": SECONDS},
    "required": ["connect", "send", "read"],
}
STATUS: Final[Schema] = {"type": "integer", "enum": [1, 0]}
#: API7 sends the gateway group with every call, and in some objects.
GROUP: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}


def _strings(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, "uniqueItems": True, **more}


def _statuses() -> Schema:
    return _strings({"type": "integer", "minimum": 200, "maximum": 599}, minItems=1)


def _count(least: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": 254}


_CHECK_TYPE: Final[Schema] = {"type": "string", "enum": ["http", "https", "tcp"]}
CHECKS: Final[Schema] = {
    "type": "object",
    "properties": {
        "active": {
            "type": "object",
            "properties": {
                "type": _CHECK_TYPE,
                "timeout": SECONDS,
                "concurrency": {"type": "integer", "minimum": 1},
                "host": HOST,
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "http_method": {"type": "string", "enum": list(METHODS)},
                "http_path": {"type": "string"},
                "http_req_body": {"type": "string"},
                "https_verify_certificate": {"type": "boolean"},
                "req_headers": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                "healthy": {
                    "type": "object",
                    "properties": {
                        "interval": {"type": "integer", "minimum": 1},
                        "http_statuses": _statuses(),
                        "successes": _count(1),
                    },
                },
                "unhealthy": {
                    "type": "object",
                    "properties": {
                        "interval": {"type": "integer", "minimum": 1},
                        "http_statuses": _statuses(),
                        "http_failures": _count(1),
                        "tcp_failures": _count(1),
                        "timeouts": _count(1),
                    },
                },
            },
        },
        "passive": {
            "type": "object",
            "properties": {
                "type": _CHECK_TYPE,
                "healthy": {
                    "type": "object",
                    "properties": {"http_statuses": _statuses(), "successes": _count(0)},
                },
                "unhealthy": {
                    "type": "object",
                    "properties": {
                        "http_statuses": _statuses(),
                        "http_failures": _count(0),
                        "tcp_failures": _count(0),
                        "timeouts": _count(0),
                    },
                },
            },
        },
    },
    "additionalProperties": False,
    # As APISIX has it: passive checks do not stand alone.
    "anyOf": [{"required": ["active"]}, {"required": ["active", "passive"]}],
}

_WEIGHT: Final[Schema] = {"type": "integer", "minimum": 0}
_PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
_NODE_MAP: Final[Schema] = {"type": "object", "patternProperties": {".*": _WEIGHT}}
_NODE_LIST: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "host": HOST,
            "port": _PORT,
            "weight": _WEIGHT,
            "priority": {"type": "integer"},
            "metadata": {"type": "object"},
        },
        "required": ["host", "weight"],
    },
}

UPSTREAM: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": ID,
        "name": NAME,
        "desc": DESC,
        "labels": LABELS,
        "type": {"type": "string", "enum": ["roundrobin", "chash", "least_conn", "ewma"]},
        "hash_on": {"type": "string", "enum": ["vars", "header", "cookie", "consumer", "vars_combinations"]},
        "key": {"type": "string"},
        "scheme": {"type": "string", "enum": ["http", "https", "grpc", "grpcs"]},
        "pass_host": {"type": "string", "enum": ["pass", "node", "rewrite"]},
        "upstream_host": HOST,
        "retries": {"type": "integer", "minimum": 0},
        "retry_timeout": {"type": "number", "minimum": 0},
        "timeout": TIMEOUT,
        "keepalive_pool": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "idle_timeout": {"type": "number", "minimum": 0},
                "requests": {"type": "integer", "minimum": 1},
            },
        },
        "checks": CHECKS,
        # Besides APISIX's `verify` three paths, see `validators.tls_problem`.
        "tls": {"type": "object", "properties": {"verify": {"type": "boolean"}}},
        "nodes": {"anyOf": [_NODE_MAP, _NODE_LIST]},
        "gateway_group_id": GROUP,
    },
    "oneOf": [{"required": ["nodes"]}, {"required": ["service_name", "discovery_type"]}],
    "additionalProperties": False,
}

_TARGETS: Final = ("plugins", "upstream", "upstream_id", "service_id")
ROUTE: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": ID,
        "name": NAME,
        "desc": DESC,
        "labels": LABELS,
        "uri": {"type": "string", "minLength": 1, "maxLength": 4096},
        "uris": _strings({"type": "string", "minLength": 1, "maxLength": 4096}, minItems=1),
        # API7's name of `uris`.
        "paths": _strings({"type": "string", "minLength": 1, "maxLength": 4096}, minItems=1),
        "host": HOST,
        "hosts": _strings(HOST, minItems=1),
        "remote_addr": {"type": "string"},
        "remote_addrs": _strings({"type": "string"}, minItems=1),
        "methods": _strings({"type": "string", "enum": list(METHODS)}),
        "priority": {"type": "integer"},
        "vars": {"type": "array"},
        "timeout": TIMEOUT,
        "status": STATUS,
        "enable_websocket": {"type": "boolean"},
        "plugins": PLUGINS,
        "plugin_config_id": ID,
        "service_id": ID,
        "upstream_id": ID,
        "upstream": UPSTREAM,
        "gateway_group_id": GROUP,
        "version": {"type": "string", "maxLength": 64},
        "strip_path_prefix": {"type": "boolean"},
    },
    "additionalProperties": False,
    "allOf": [{"oneOf": [{"required": ["uri"]}, {"required": ["uris"]}, {"required": ["paths"]}]}],
    # APISIX's ten, which a refusal names. What is ours stands in allOf, and is not named.
    "anyOf": [
        *({"required": [what, "uri"]} for what in _TARGETS),
        *({"required": [what, "uris"]} for what in _TARGETS),
        {"required": ["script", "uri"]},
        {"required": ["script", "uris"]},
        *({"allOf": [{"required": [what, "paths"]}]} for what in _TARGETS),
        {"allOf": [{"required": ["plugin_config_id"]}]},
    ],
}

SERVICE: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": ID,
        "name": NAME,
        "desc": DESC,
        "labels": LABELS,
        "hosts": _strings(HOST, minItems=1),
        "enable_websocket": {"type": "boolean"},
        "plugins": PLUGINS,
        "upstream_id": ID,
        "upstream": UPSTREAM,
        # API7's.
        "type": {"type": "string", "enum": ["http"]},
        "status": STATUS,
        "version": {"type": "string", "maxLength": 64},
        "path_prefix": {"type": "string", "minLength": 1, "maxLength": 4096},
        "strip_path_prefix": {"type": "boolean"},
        "gateway_group_id": GROUP,
    },
    "additionalProperties": False,
}

CONSUMER: Final[Schema] = {
    "type": "object",
    "properties": {
        "username": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[a-zA-Z0-9_\-]+$"},
        "group_id": ID,
        "desc": DESC,
        "labels": LABELS,
        "plugins": PLUGINS,
        "gateway_group_id": GROUP,
    },
    "required": ["username"],
    "additionalProperties": False,
}

CREDENTIAL: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": ID,
        "name": NAME,
        "desc": DESC,
        "labels": LABELS,
        # APISIX takes a credential without a plugin, which nobody could use.
        "plugins": {"type": "object", "minProperties": 1, "maxProperties": 1},
        "gateway_group_id": GROUP,
    },
    "required": ["plugins"],
    "additionalProperties": False,
}

#: Plugin configs and consumer groups.
BUNDLE: Final[Schema] = {
    "type": "object",
    "properties": {
        "id": ID,
        "name": NAME,
        "desc": DESC,
        "labels": LABELS,
        "plugins": PLUGINS,
        "gateway_group_id": GROUP,
    },
    "required": ["plugins"],
    "additionalProperties": False,
}

GLOBAL_RULE: Final[Schema] = {
    "type": "object",
    "properties": {"id": ID, "plugins": PLUGINS, "gateway_group_id": GROUP},
    "required": ["plugins"],
    "additionalProperties": False,
}
