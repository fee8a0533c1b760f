"""POST /configs/validate: a whole configuration, as APISIX's standalone mode has it, checked without being written.

Called by the view of `apisix`. Each object is checked as a write would; whether ids that objects name exist is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..schema import lua_type
from .apisix_absent import ABSENT, refused
from .apisix_resources import CREDENTIALS, RESOURCES, Resource
from .apisix_store import check
from .errors import ApiError, invalid, refuse

_STAMPS: Final = ("create_time", "update_time")
_BETWEEN: Final = "/credentials/"
#: Whose schemas in APISIX ask for an id.
_WITH_ID: Final = frozenset(["plugin_configs", "consumer_groups", "global_rules"])
#: APISIX counts its own versions of each list there.
_VERSION: Final = "_conf_version"


def validate(document: Any) -> None:
    """Raise ApiError 400 that lists everything wrong: the list, the place in it from 0, and why."""
    if document is None:
        raise refuse("invalid request body: empty request body")
    if not isinstance(document, dict):
        raise refuse("invalid request body: it is not an object")
    problems = list(_problems(document))
    if problems:
        body = {"error_msg": "Configuration validation failed", "errors": problems}
        raise ApiError(400, body)


def _problems(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, items in document.items():
        of = name.removesuffix(_VERSION)
        if of not in RESOURCES and of not in ABSENT:
            yield {"resource_type": name, "error": f"Unsupported resource type: {name}"}
        elif name != of:
            if isinstance(items, bool) or not isinstance(items, int | float):
                yield {"resource_type": of, "error": f"{name} must be a number, got {lua_type(items)}"}
        elif not isinstance(items, list):
            yield {"resource_type": name, "error": f"{name} must be a list"}
        else:
            seen: set[str] = set()
            for index, item in enumerate(items):
                try:
                    _check(name, item)
                except ApiError as error:
                    text = f"invalid {name} at index {index}, err: {_text(error)}"
                    yield {"resource_type": name, "index": index, "error": text}
                kind, key = _identity(name, item)
                if key in seen:
                    yield {"resource_type": name, "index": index, "error": f"found duplicate {kind} {key} in {name}"}
                if key:
                    seen.add(key)


def _check(name: str, item: Any) -> None:
    """Refuse (ApiError) a wrong object. As in APISIX, only those need an id whose schema there asks for it."""
    if name in ABSENT:
        raise refused(name)
    if not isinstance(item, dict):
        raise refuse("missing configurations")
    resource: Resource = RESOURCES[name]
    doc = {field: value for field, value in item.items() if field not in _STAMPS}
    if name == "consumers" and _BETWEEN in str(doc.get("id", "")):
        resource, doc = CREDENTIALS, {**doc, "id": str(doc["id"]).partition(_BETWEEN)[2]}
    elif name == "consumers":
        # The importer's form repeats the name there.
        doc.pop("id", None)
    elif name in _WITH_ID and "id" not in doc:
        raise invalid('property "id" is required')
    check(resource, doc)


def _identity(name: str, item: Any) -> tuple[str, str]:
    """What names an object among those of its list, in words and as it is; "" where nothing does."""
    if not isinstance(item, dict):
        return "", ""
    if name != "consumers":
        return "id", str(item.get("id", ""))
    if "id" in item:
        return "credential id", str(item["id"])
    return "username", str(item.get("username", ""))


def _text(error: ApiError) -> str:
    return str(error.body.get("error_msg", "")) if isinstance(error.body, dict) else error.body
