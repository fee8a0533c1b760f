"""APISIX's admin API over HTTP: the key, the body, the address, the answer. The work is `apisix_store`'s.

Mounted at /apisix/admin/. Statuses, words and headers are APISIX 3.18's; `X-API-VERSION: v3`, JSON, LF at the end.
"""

from __future__ import annotations

import json
import logging
import math
import traceback
from typing import Any, Final, cast

from django.core.exceptions import BadRequest, SuspiciousOperation, ValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.http import HttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from . import apisix_absent as absent
from . import apisix_configs as configs
from . import apisix_plugin_info as info
from . import apisix_store as store
from .apisix_resources import CREDENTIALS, RESOURCES, Resource
from .auth import AdminKeyAuthentication, Caller
from .body import MISSING, read_json
from .errors import ApiError, from_model, not_found, refuse

logger = logging.getLogger("hmac_gateway.admin_api")

#: A hundred years; beyond, dates end.
_MAX_TTL: Final = 3_153_600_000
_METHODS: Final = "GET, PUT, POST, PATCH, DELETE, OPTIONS"


class AlwaysJson(BaseContentNegotiation):
    """Answers are JSON whatever the Accept header says, as APISIX's are."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return JSONRenderer(), "application/json"


class ApisixView(APIView):
    """Every address below /apisix/admin/. A host's REST_FRAMEWORK settings do not reach in here."""

    authentication_classes = [AdminKeyAuthentication]
    permission_classes = []
    throttle_classes = []
    parser_classes = []
    renderer_classes = [JSONRenderer]
    content_negotiation_class = AlwaysJson
    versioning_class = None
    # One view for many addresses: `openapi` describes them.
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # A browser asks without the key whether it may ask with it.
        if request.method != "OPTIONS":
            super().initial(request, *args, **kwargs)

    def options(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        """CORS: any origin may ask, since no answer comes without the key. Cookies are not sent along."""
        response = HttpResponse(status=200, content_type="text/plain")
        response["Access-Control-Allow-Methods"] = _METHODS
        response["Access-Control-Allow-Headers"] = "*"
        response["Access-Control-Max-Age"] = "3600"
        return response

    def get(self, request: Request, **address: str | None) -> HttpResponse:
        resource, key, path = _target(address)
        call = _call(request, address)
        if path:
            raise not_found()
        if key is None:
            return answer(200, store.listing(resource, call, request.query_params))
        return answer(200, store.get(resource, key, call))

    def put(self, request: Request, **address: str | None) -> HttpResponse:
        resource, key, path = _target(address)
        if path:
            raise not_found()
        created, body = store.put(resource, key, _document(request), _call(request, address))
        return answer(201 if created else 200, body)

    def post(self, request: Request, **address: str | None) -> HttpResponse:
        resource, key, _ = _target(address)
        _refuse_method("POST", resource)
        return answer(201, store.post(resource, key, _document(request), _call(request, address)))

    def patch(self, request: Request, **address: str | None) -> HttpResponse:
        resource, key, path = _target(address)
        _refuse_method("PATCH", resource)
        if key is None:
            raise refuse(f"missing {resource.kind} id")
        change = read_json(request._request)
        if change is MISSING or (change is None and not path):
            raise refuse("missing new configuration")
        return answer(200, store.patch(resource, key, path, change, _call(request, address)))

    def delete(self, request: Request, **address: str | None) -> HttpResponse:
        resource, key, path = _target(address)
        if path:
            raise not_found()
        force = request.query_params.get("force") == "true"
        return answer(200, store.delete(resource, key, force, _call(request, address)))

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        raise refuse(f"not supported `{request.method}` method", 405)

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        """Turn any failure into an answer; one that nobody foresaw is logged and tells the caller nothing."""
        return failure(exc)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        if response.status_code != 401:
            # As APISIX, which looks at the key before it knows of versions.
            response["X-API-VERSION"] = "v3"
        response["Access-Control-Allow-Origin"] = "*"
        response["Access-Control-Expose-Headers"] = "*"
        response["Cache-Control"] = "no-store"
        if response.status_code == 405:
            response["Allow"] = ", ".join(self._supported())
        return response

    def _supported(self) -> list[str]:
        """The methods that there are at this address (RFC 9110 15.5.6)."""
        found = RESOURCES.get(self.kwargs.get("name") or "")
        resource = CREDENTIALS if self.kwargs.get("owner") is not None else found
        refused = frozenset() if resource is None else resource.refused_methods
        return [method for method in self.allowed_methods if method not in refused]


class AbsentView(ApisixView):
    """What APISIX has and we have not, /ssls and the like: nothing to read, and writing it is refused."""

    def get(self, request: Request, **address: str | None) -> HttpResponse:
        return answer(200, absent.read(address["name"] or "", address.get("key") or ""))

    def put(self, request: Request, **address: str | None) -> HttpResponse:
        raise absent.refused(address["name"] or "")

    post = put

    def patch(self, request: Request, **address: str | None) -> HttpResponse:
        raise not_found()

    delete = patch


class RootView(ApisixView):
    """HEAD of /apisix/admin says that the API is up, without a key; there is nothing else."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method != "HEAD":
            super().initial(request, *args, **kwargs)

    def head(self, request: Request, **address: str | None) -> HttpResponse:
        return HttpResponse(status=200, content_type="application/json")


class InfoView(ApisixView):
    """What there is to read about plugins and schemas. Another method finds nothing, as in APISIX."""

    http_method_names = ["get", "head", "options"]

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        raise refuse("not found", 404)


class PluginsView(InfoView):
    """GET /plugins?all=true."""

    def get(self, request: Request, **address: str | None) -> HttpResponse:
        query = request.query_params
        if query.get("all") != "true":
            return answer(200, info.plugin_schema("", subsystem=query.get("subsystem", "http")))
        return answer(200, info.everything(query.get("subsystem", "http")))


class ReloadView(ApisixView):
    """PUT /plugins/reload: plugins are a part of the program, so nothing is left to do."""

    http_method_names = ["put", "options"]

    def put(self, request: Request, **address: str | None) -> HttpResponse:
        return answer(200, "done")

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        raise refuse(f"please use PUT method to reload the plugins, {request.method} method is not allowed.", 405)


class ConfigsView(ApisixView):
    """POST /configs/validate: 200 and an empty answer when the whole configuration is right."""

    http_method_names = ["post", "options"]

    def post(self, request: Request, **address: str | None) -> HttpResponse:
        configs.validate(_document(request))
        return HttpResponse(status=200, content_type="application/json")


class PluginListView(InfoView):
    """GET /plugins/list."""

    def get(self, request: Request, **address: str | None) -> HttpResponse:
        return answer(200, info.listed(request.query_params.get("subsystem", "http")))


class SchemaView(InfoView):
    """GET /plugins/P, /schema/plugins/P and /schema/R."""

    def get(self, request: Request, **address: str | None) -> HttpResponse:
        if plugin := address.get("plugin"):
            query = request.query_params
            return answer(200, info.plugin_schema(plugin, query.get("schema_type"), query.get("subsystem", "http")))
        return answer(200, info.resource_schema(address.get("kind") or ""))


class ValidateView(ApisixView):
    """POST /schema/validate/R: 200 and an empty answer when the document is right."""

    http_method_names = ["post", "options"]

    def post(self, request: Request, **address: str | None) -> HttpResponse:
        info.validate(address.get("name") or "", _document(request))
        return HttpResponse(status=200, content_type="application/json")


def answer(status: int, body: Any) -> HttpResponse:
    """A response: JSON and a final LF, or plain text as it is."""
    if isinstance(body, str):
        return HttpResponse(body, status=status, content_type="text/plain")
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n"
    # A lone surrogate, quoted from a hostile address, becomes a JSON escape.
    return HttpResponse(text.encode("utf-8", "backslashreplace"), status=status, content_type="application/json")


def failure(error: Exception) -> HttpResponse:
    """The answer to a failure."""
    if isinstance(error, ApiError):
        return answer(error.status, error.body)
    if isinstance(error, ValidationError):
        refused = from_model(error)
        return answer(refused.status, refused.body)
    if isinstance(error, BadRequest | SuspiciousOperation):
        # Django's limits, such as on the number of arguments.
        return answer(400, {"error_msg": "bad request"})
    if isinstance(error, IntegrityError):
        return answer(409, {"error_msg": "the object conflicts with another that was written at the same time"})
    if isinstance(error, DataError):
        return answer(400, {"error_msg": "invalid configuration: a value does not fit into its column"})
    if isinstance(error, OperationalError):
        logger.warning("admin API: the database is not available: %s", type(error).__name__)
        return answer(503, {"error_msg": "the database is not available"})
    # Where it happened and its type, but not its text, which may quote a secret.
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("admin API: unforeseen %s\n%s", type(error).__name__, places)
    return answer(500, {"error_msg": "internal error"})


def _target(address: dict[str, str | None]) -> tuple[Resource, str | None, str]:
    if address.get("owner") is not None:
        return CREDENTIALS, address.get("key"), ""
    name = address.get("name") or ""
    resource = RESOURCES.get(name)
    if resource is None:
        raise refuse(f"Unsupported resource type: {name}", 404)
    return resource, address.get("key"), address.get("path") or ""


def _refuse_method(method: str, resource: Resource) -> None:
    if method in resource.refused_methods:
        raise refuse(f"not supported `{method}` method for {resource.kind}", 405)


def _document(request: Request) -> Any:
    found = read_json(request._request)
    return None if found is MISSING else found


def _call(request: Request, address: dict[str, str | None]) -> store.Call:
    query = request.query_params
    ttl = query.get("ttl")
    caller = cast(Caller, request.auth)
    return store.Call(
        actor=caller.name,
        key=caller.key,
        ttl=None if ttl is None else _seconds(ttl),
        group=_group(query.get("gateway_group_id", "")),
        owner=address.get("owner"),
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise refuse("invalid argument ttl: should be a number") from None
    if not math.isfinite(seconds) or not 0 < seconds <= _MAX_TTL:
        raise refuse("invalid argument ttl: should be a number")
    return seconds


def _group(text: str) -> str:
    if len(text) > 256 or "\0" in text or (text and not text.strip()):
        raise refuse("invalid argument gateway_group_id: should be 1 to 256 characters")
    return text
