"""What Kong's files may hold and this gateway does not, and why that is passed over. Data only, read by `kong_read`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CERTIFICATES: Final = "certificates are not kept here; the listener's are files, see hmac_serve --tls-cert"
_GROUPS: Final = "Kong's consumer groups are not kept here"
_FOREIGN: Final = "it belongs to a plugin that this gateway does not have"
_ENTERPRISE: Final = "it is about Kong's own administration"

#: Lists of entities.
NOT_HELD: Final[Mapping[str, str]] = {
    "certificates": _CERTIFICATES,
    "snis": _CERTIFICATES,
    "ca_certificates": _CERTIFICATES,
    "vaults": "vaults are not asked here; $env://NAME stands for an environment variable",
    "keys": "no plugin here uses them",
    "key_sets": "no plugin here uses them",
    "workspaces": "there is one configuration here",
    "consumer_groups": _GROUPS,
    "consumer_group_consumers": _GROUPS,
    "consumer_group_plugins": _GROUPS,
    "filter_chains": "WebAssembly filters are not run here",
    "partials": "configurations that plugins share are not kept apart here",
    "plugins_partials": "configurations that plugins share are not kept apart here",
    "custom_entities": _FOREIGN,
    "oauth2_credentials": _FOREIGN,
    "oauth2_tokens": _FOREIGN,
    "oauth2_authorization_codes": _FOREIGN,
    "mtls_auth_credentials": _FOREIGN,
    "keyauth_enc_credentials": _FOREIGN,
    "header_cert_auth_credentials": _FOREIGN,
    "degraphql_routes": _FOREIGN,
    "graphql_ratelimiting_advanced_cost_decoration": _FOREIGN,
    "jwt_signer_jwks": _FOREIGN,
    "oic_issuers": _FOREIGN,
    "oic_jwks": _FOREIGN,
    "oic_oauth_scopes": _FOREIGN,
    "acme_storage": _FOREIGN,
    "sessions": _FOREIGN,
    "session_metadatas": _FOREIGN,
    "ratelimiting_metrics": "counters are not configuration",
    "rl_counters": "counters are not configuration",
    "clustering_data_planes": _ENTERPRISE,
    "clustering_rpc_requests": _ENTERPRISE,
    "parameters": _ENTERPRISE,
    "licenses": _ENTERPRISE,
    "admins": _ENTERPRISE,
    "rbac_users": _ENTERPRISE,
    "rbac_roles": _ENTERPRISE,
    "rbac_role_endpoints": _ENTERPRISE,
    "event_hooks": _ENTERPRISE,
    "files": _ENTERPRISE,
    "service_packages": _ENTERPRISE,
    "asyncjobs": _ENTERPRISE,
}

_CREDENTIALS: Final = {
    name: NOT_HELD[name]
    for name in (
        "oauth2_credentials",
        "oauth2_tokens",
        "oauth2_authorization_codes",
        "mtls_auth_credentials",
        "keyauth_enc_credentials",
        "header_cert_auth_credentials",
    )
}
#: Fields of entities, and lists nested in them.
FIELDS_NOT_HELD: Final[Mapping[str, Mapping[str, str]]] = {
    "services": {
        "client_certificate": _CERTIFICATES,
        "ca_certificates": _CERTIFICATES,
        "filter_chains": NOT_HELD["filter_chains"],
        "degraphql_routes": _FOREIGN,
        "oauth2_tokens": _FOREIGN,
    },
    "routes": {"filter_chains": NOT_HELD["filter_chains"]},
    "consumers": {**_CREDENTIALS, "groups": _GROUPS, "consumer_group_consumers": _GROUPS},
    "upstreams": {"client_certificate": _CERTIFICATES},
    "plugins": {
        "ordering": "plugins run in the order of their priorities here",
        "partials": NOT_HELD["partials"],
        "consumer_group": _GROUPS,
    },
}

#: Fields that say nothing here: Kong's dumps have them.
IGNORED: Final[Mapping[str, frozenset[str]]] = {
    "*": frozenset(["ws_id"]),
    "consumers": frozenset(["ws_id", "type"]),
    "plugins": frozenset(["ws_id", "run_on"]),
}

#: Options of plugins that are ours: Kong refuses a file that says them.
OURS: Final[Mapping[str, frozenset[str]]] = {
    "*": frozenset(["expose_reason"]),
    "hmac-auth": frozenset(
        ["expose_reason", "max_req_body_size", "require_signed_date", "require_signed_digest", "replay_protection"]
        + ["replay_methods", "scheme", "sign_header", "headers", "digest", "any_digest", "key_id", "key_ids"]
    ),
    "jwt": frozenset(["expose_reason", "hide_credentials"]),
}
#: Plugins that Kong does not have.
OUR_PLUGINS: Final = frozenset(["sign-request"])

_WATCHES: Final = "it only observes"
_CHANGES: Final = "requests and answers pass without what it changes"
_CACHES: Final = "answers are not cached here"
#: Plugins that keep nobody out: without them the same calls pass.
HARMLESS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ["file-log", "http-log", "tcp-log", "udp-log", "syslog", "loggly", "kafka-log", "solace-log"], _WATCHES
    ),
    **dict.fromkeys(["datadog", "statsd", "statsd-advanced", "prometheus", "app-dynamics"], _WATCHES),
    **dict.fromkeys(["zipkin", "opentelemetry"], _WATCHES),
    "correlation-id": "every request has an X-Request-Id here",
    **dict.fromkeys(["request-transformer", "request-transformer-advanced", "route-transformer-advanced"], _CHANGES),
    **dict.fromkeys(["response-transformer", "response-transformer-advanced", "exit-transformer"], _CHANGES),
    **dict.fromkeys(["cors", "grpc-web", "grpc-gateway", "tls-metadata-headers", "upstream-timeout"], _CHANGES),
    **dict.fromkeys(["proxy-cache", "proxy-cache-advanced", "graphql-proxy-cache-advanced"], _CACHES),
    "acme": _CERTIFICATES,
}
