"""POST /configs/validate: a whole configuration, as APISIX's standalone mode has it, checked without being written.

Called by the view of `apisix`. Each object is checked as a write would; whether ids that objects name exist is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .apisix_absent import ABSENT, refused
from .apisix_resources import CREDENTIALS, RESOURCES, Resource
from .apisix_store import check
from .errors import ApiError, refuse

_STAMPS: Final = ("create_time", "update_time")
_BETWEEN: Final = "/credentials/"
#: APISIX counts its own versions of each list there.
_VERSION: Final = "_conf_version"


def validate(document: Any) -> None:
    """Raise ApiError 400 that lists everything wrong: the list, the place in it from 0, and why."""
    if not isinstance(document, dict):
        raise refuse("invalid request body: it is not an object")
    problems = list(_problems(document))
    if problems:
        body = {"error_msg": "Configuration validation failed", "errors": problems}
        raise ApiError(400, body)


def _problems(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, items in document.items():
        if name.endswith(_VERSION) and isinstance(items, int):
            continue
        if name not in RESOURCES and name not in ABSENT:
            yield {"resource_type": name, "error": f"Unsupported resource type: {name}"}
        elif not isinstance(items, list):
            yield {"resource_type": name, "error": f"{name} must be a list"}
        else:
            seen: set[str] = set()
            for index, item in enumerate(items):
                try:
                    key = _check(name, item)
                    if key in seen:
                        raise refuse(f"found duplicate id {key} in {name}")
                    seen.add(key)
                except ApiError as error:
                    yield {"resource_type": name, "index": index, "error": _text(error)}


def _check(name: str, item: Any) -> str:
    """Refuse (ApiError) a wrong object; its id."""
    if name in ABSENT:
        raise refused(name)
    if not isinstance(item, dict):
        raise refuse("missing configurations")
    resource: Resource = RESOURCES[name]
    doc = {field: value for field, value in item.items() if field not in _STAMPS}
    key = str(doc.get(resource.key_field, ""))
    if name == "consumers" and _BETWEEN in str(doc.get("id", "")):
        key = str(doc["id"])
        resource, doc = CREDENTIALS, {**doc, "id": key.partition(_BETWEEN)[2]}
    elif name == "consumers":
        # The importer's form repeats the name there.
        doc.pop("id", None)
    if not key:
        raise refuse(f"missing {resource.kind} {'name' if resource.key_field == 'username' else 'id'}")
    check(resource, doc)
    return key


def _text(error: ApiError) -> str:
    return str(error.body.get("error_msg", "")) if isinstance(error.body, dict) else error.body
