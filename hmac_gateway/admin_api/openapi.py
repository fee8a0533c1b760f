"""The admin API as an OpenAPI document: the resources' and plugins' own schemas, put under their addresses.

A postprocessing hook of drf-spectacular (`POSTPROCESSING_HOOKS`), which serves the document and the page that shows it;
one view answers all addresses, so there is nothing for it to find by itself. Holds no configuration and no secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..plugins import ALL
from .apisix_absent import ABSENT
from .apisix_plugin_info import names
from .apisix_resources import CREDENTIALS, RESOURCES, Resource

Doc = dict[str, Any]

BASE: Final = "/apisix/admin"
_ABOUT: Final = (
    "Apache APISIX's admin API, version 3, over this gateway's configuration. Every call needs a key in `X-API-KEY`; "
    "a viewer's key may only read. Secrets are shown as `********`, and that written back leaves them as they are."
)
_ENVELOPE: Final[Doc] = {"type": "object", "properties": {"key": {"type": "string"}, "value": {"type": "object"}}}
_ERROR: Final[Doc] = {
    "type": "object",
    "properties": {
        "error_msg": {"type": "string"},
        "description": {"type": "string"},
        "req_body": {"type": "string"},
        "message": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
_STAMP: Final[Doc] = {"type": "integer", "description": "Unix seconds"}
_ID: Final[Doc] = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9_.-]+$"}


def describe(result: Doc, generator: Any, request: Any, public: bool) -> Doc:
    """drf-spectacular's hook: the document with every address of the console's listener."""
    result["info"]["description"] = _ABOUT
    found: Doc = {}
    for resource in (*RESOURCES.values(), CREDENTIALS):
        for path, arguments, operations in _resource(resource):
            for operation in operations.values():
                operation["parameters"] = [*arguments, *operation.get("parameters", ())]
            found[path] = operations
    result["paths"] = {**found, **_others(), **_health()}
    components = result.setdefault("components", {})
    components["schemas"] = _schemas()
    components["responses"] = {
        "Refused": _answer("What is wrong with the call, or with its body", _ref("Error")),
        "NoKey": _answer("No key, a wrong one, or one that may not write", _ref("Error")),
        "NotFound": _answer("There is no such object", _ref("Error")),
        "Unsupported": _answer("The method is not supported here", _ref("Error")),
        "Conflict": _answer("Another writer came first", _ref("Error")),
        "Unavailable": _answer("The database is away", _ref("Error")),
    }
    # APISIX says some of it (page_size, subsystem) as bare text.
    components["responses"]["Refused"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    components["securitySchemes"] = {"AdminKey": {"type": "apiKey", "in": "header", "name": "X-API-KEY"}}
    result["security"] = [{"AdminKey": []}]
    return result


def _schemas() -> Doc:
    found: Doc = {"Error": _ERROR}
    enabled = [name for name in ALL if name in names()]
    for name in enabled:
        plugin: Any = ALL[name]
        found[f"plugin.{name}"] = _open_api(plugin.config_schema["apisix"])
        if getattr(plugin, "credential_schema", None) is not None:
            found[f"credential.{name}"] = _open_api(plugin.credential_schema)
    for resource in (*RESOURCES.values(), CREDENTIALS):
        schema = _open_api(resource.schema)
        properties = schema["properties"]
        if "plugins" in properties:
            known = [(name, f"plugin.{name}") for name in enabled]
            if resource.name in ("consumers", "credentials"):
                known = [
                    (name, f"credential.{name}" if f"credential.{name}" in found else place)
                    for name, place in known
                    if resource.name == "consumers" or f"credential.{name}" in found
                ]
            properties["plugins"] = {**properties["plugins"], "properties": {name: _ref(at) for name, at in known}}
        if "upstream" in properties:
            properties["upstream"] = _ref("upstream")
        kind = _kind(resource)
        found[kind] = schema
        stamps = {"create_time": _STAMP, "update_time": _STAMP}
        value = {"type": "object", "properties": {**properties, **stamps}}
        both = {"key": {"type": "string"}, "value": value}
        indexes = {"createdIndex": {"type": "integer"}, "modifiedIndex": {"type": "integer"}}
        found[f"{kind}.written"] = {"type": "object", "properties": both, "required": ["key", "value"]}
        found[f"{kind}.stored"] = {"type": "object", "properties": {**both, **indexes}, "required": [*both, *indexes]}
    return found


def _kind(resource: Resource) -> str:
    return resource.kind.replace(" ", "_")


def _open_api(schema: Any) -> Any:
    """A schema of ours as OpenAPI 3.1 reads it: regular expressions without Python's own signs."""
    if isinstance(schema, Mapping):
        return {
            key: _expression(item) if key == "pattern" and isinstance(item, str) else _open_api(item)
            for key, item in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_open_api(item) for item in schema]
    return schema


def _expression(text: str) -> str:
    # ECMA-262 has no \Z, and wants a hyphen escaped that is no range.
    return text.replace(r"\Z", "$").replace("9-_", r"9\-_").replace("Z-.", r"Z\-.")


def _ref(name: str) -> Doc:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(text: str, schema: Doc | None = None, media: str = "application/json") -> Doc:
    return {"description": text, **({} if schema is None else {"content": {media: {"schema": schema}}})}


def _answers(*good: tuple[int, str, Doc | None], missing: bool = True) -> Doc:
    named = {"400": "Refused", "401": "NoKey", **({"404": "NotFound"} if missing else {}), "409": "Conflict"}
    bad = {
        status: {"$ref": f"#/components/responses/{name}"} for status, name in {**named, "503": "Unavailable"}.items()
    }
    return {**{str(status): _answer(text, schema) for status, text, schema in good}, **bad}


def _argument(name: str, about: str, schema: Doc | None = None, place: str = "query") -> Doc:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": about, "schema": schema or {"type": "string"}, **required}


_TTL: Final = _argument("ttl", "Seconds after which the object is as if deleted.", {"type": "number"})
_GROUP: Final = _argument("gateway_group_id", "API7's gateway group; kept as a label.")
_FORCE: Final = _argument("force", "`true`: delete what is in use; what used it is switched off.", {"enum": ["true"]})
_LIST: Final = (
    _argument("page", "From 1; with `page_size` only.", {"type": "integer", "minimum": 1}),
    _argument("page_size", "With `page` only.", {"type": "integer", "minimum": 10, "maximum": 500}),
    _argument("name", "A regular expression."),
    _argument("uri", "A regular expression."),
    _argument("label", "A key, or `key:value`."),
)


def _operation(resource: Resource, verb: str, summary: str, answers: Doc, *arguments: Doc, body: Any = None) -> Doc:
    title = "".join(word.capitalize() for word in resource.kind.split())
    found: Doc = {
        "operationId": f"{verb}{title}",
        "summary": summary,
        "tags": [resource.name],
        "responses": answers,
    }
    if arguments:
        found["parameters"] = list(arguments)
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def _resource(resource: Resource) -> Iterator[tuple[str, list[Doc], Doc]]:
    """Addresses, what stands in them, and the operations by method."""
    kind, what = _kind(resource), resource.kind
    own: list[Doc] = []
    base = f"{BASE}/{resource.name}"
    if resource is CREDENTIALS:
        base = f"{BASE}/consumers/{{username}}/credentials"
        own = [_argument("username", "The consumer.", place="path")]
    new = (201, "Made", _ref(f"{kind}.written"))
    replaced = (200, "Replaced", _ref(f"{kind}.written"))
    several = {
        "type": "object",
        "properties": {"list": {"type": "array", "items": _ref(f"{kind}.stored")}, "total": {"type": "integer"}},
        "required": ["list", "total"],
    }
    more = [_argument("filter", "`service_id%3DID` or `upstream_id%3DID`.")] if resource.name == "routes" else []
    refused = resource.refused_methods
    listed = (200, "Found", several)
    put = _operation(
        resource,
        "putWhole",
        f"Make or replace a {what}; its id stands in the body",
        _answers(new, replaced),
        _TTL,
        _GROUP,
        body=_ref(kind),
    )
    together: Doc = {"get": _operation(resource, "list", f"All of {resource.name}", _answers(listed), *_LIST, *more)}
    together["put"] = put
    if "POST" not in refused:
        answers = _answers(new)
        summary = f"Make a {what} under an id of 20 digits"
        together["post"] = _operation(resource, "post", summary, answers, _TTL, _GROUP, body=_ref(kind))
    yield base, own, together

    key = "username" if resource.key_field == "username" else "id"
    one = _argument(key, f"The {what}.", {"type": "string", "minLength": 1} if key == "username" else _ID, "path")
    gone = {"type": "object", "properties": {"deleted": {"const": "1"}, "key": {"type": "string"}}}
    single: Doc = {
        "get": _operation(resource, "get", f"One {what}", _answers((200, "Found", _ref(f"{kind}.stored")))),
        "put": _operation(
            resource, "put", f"Make or replace a {what}", _answers(new, replaced), _TTL, _GROUP, body=_ref(kind)
        ),
        "delete": _operation(
            resource,
            "delete",
            f"Delete a {what}",
            _answers((200, "Deleted", gone)),
            *([_FORCE] if resource.uses else []),
        ),
    }
    if "PATCH" not in refused:
        about = f"Change a {what}: objects merge, lists are replaced, null deletes"
        single["patch"] = _operation(resource, "patch", about, _answers(replaced), _TTL, body={"type": "object"})
    yield f"{base}/{{{key}}}", [*own, one], single
    if "PATCH" not in refused:
        path = _argument("path", "Where in the object, as in `plugins/hmac-auth`.", place="path")
        at = _operation(
            resource, "patchAt", f"Replace what stands at a place in a {what}", _answers(replaced), _TTL, body={}
        )
        yield f"{base}/{{{key}}}/{{path}}", [one, path], {"patch": at}


def _simple(verb: str, name: str, tag: str, summary: str, answers: Doc, body: Any = None, **more: Any) -> Doc:
    operation: Doc = {"operationId": name, "summary": summary, "tags": [tag], "responses": answers, **more}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return {verb: operation}


def _others() -> Doc:
    anything: Doc = {"type": "object"}
    plugin = _argument("plugin", "A plugin's name.", place="path")
    of = _argument("schema_type", "`consumer`: of its credentials.", {"enum": ["consumer"]})
    subsystem = _argument("subsystem", "`stream` has no plugins here.", {"enum": ["http", "stream"]})
    kind = _argument("kind", "Such as `route` or `routes`.", place="path")
    name = _argument("name", "Such as `routes`.", place="path")
    right = (200, "Right", None)
    schema = _answers((200, "JSON Schema", anything))
    found: Doc = {
        "/plugins": _simple(
            "get",
            "describePlugins",
            "plugins",
            "Enabled plugins with their schemas",
            _answers((200, "By name", anything)),
            parameters=[{**_argument("all", "Always `true`.", {"enum": ["true"]}), "required": True}, subsystem],
        ),
        "/plugins/list": _simple(
            "get",
            "listPlugins",
            "plugins",
            "Names of enabled plugins, those that run first at the front",
            _answers((200, "Names", {"type": "array", "items": {"type": "string"}})),
            parameters=[subsystem],
        ),
        "/plugins/reload": _simple(
            "put", "reloadPlugins", "plugins", "Nothing to do here", _answers((200, "`done`, a text", None))
        ),
        "/plugins/{plugin}": _simple(
            "get", "getPlugin", "plugins", "A plugin's schema", schema, parameters=[plugin, of]
        ),
        "/schema/plugins/{plugin}": _simple(
            "get", "getPluginSchema", "schema", "A plugin's schema", schema, parameters=[plugin, of]
        ),
        "/schema/{kind}": _simple("get", "getSchema", "schema", "A resource's schema", schema, parameters=[kind]),
        "/schema/validate/{name}": _simple(
            "post",
            "validate",
            "schema",
            "Check an object without writing it",
            _answers(right),
            anything,
            parameters=[name],
        ),
        "/configs/validate": _simple(
            "post",
            "validateConfigs",
            "schema",
            "Check a whole configuration without writing it",
            _answers(right),
            anything,
        ),
    }
    empty = {"type": "object", "properties": {"list": {"type": "array", "maxItems": 0}, "total": {"const": 0}}}
    for absent, why in ABSENT.items():
        found[f"/{absent}"] = _simple(
            "get", f"list_{absent}", "not available", f"Always empty: {why}", _answers((200, "Nothing", empty))
        )
    return {f"{BASE}{path}": operations for path, operations in found.items()}


def _health() -> Doc:
    alive = {"type": "object", "properties": {"alive": {"const": True}}}
    ready = {"type": "object", "properties": {"ready": {"type": "boolean"}, "problems": {"type": "array"}}}
    text = _answer("Prometheus", {"type": "string"}, "text/plain")
    return {
        "/healthz": _simple("get", "alive", "health", "The process is up", {"200": _answer("Up", alive)}, security=[]),
        "/readyz": _simple(
            "get",
            "ready",
            "health",
            "Every worker serves a current configuration",
            {"200": _answer("Ready", ready), "503": _answer("Not ready", ready)},
            security=[],
        ),
        "/metrics": _simple("get", "metrics", "health", "Metrics for Prometheus", {"200": text}, security=[]),
    }
