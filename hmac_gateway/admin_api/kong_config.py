"""Kong's /config: the whole configuration of its dialect at once, as one file, read or replaced.

Called by the view. The work is `portability`'s, which is imported late: it needs PyYAML, an extra. Shapes and words are
those of Kong without a database (`api/routes/config.lua`, `db/errors`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .kong_body import raw_body, read_body
from .kong_entities import ENTITIES
from .kong_entity import Doc
from .kong_errors import KongError, plain
from .kong_lookup import rows_of

if TYPE_CHECKING:
    from .kong import Ask

_NAME: Final = "invalid declarative configuration"
_INVALID: Final = "declarative config is invalid: "
#: Content types of a body that is the file itself.
_YAML: Final = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain")


def show_config(ask: Ask) -> tuple[int, Any]:
    """GET /config: the configuration as YAML, its secrets masked."""
    from ..portability import text
    from ..portability.kong_export import export_document

    return 200, {"config": text.dump_yaml(export_document().document, "", end=False)}


def replace_config(ask: Ask) -> tuple[int, Any]:
    """POST /config: make the configuration of Kong's dialect what the file says; all other entities of it go.

    201 with the entities by kind and id; 304 with `check_hash=1` where the file changes nothing. `flatten_errors=1`
    lists what is wrong entity by entity, `strict=1` refuses what would be passed over. Raises KongError 400.
    """
    from ..portability import text
    from ..portability.kong_import import Invalid, import_document
    from ..portability.report import Refused

    try:
        document = _document(ask, text)
        report = import_document(
            document, actor=ask.call.actor, prune=True, strict=ask.query.get("strict") == "1", call=ask.call
        )
    except text.FileError as error:
        raise _refused({"error": f"failed parsing declarative configuration: {error}"}) from None
    except Invalid as error:
        raise _invalid(error.found, ask.query.get("flatten_errors") == "1") from None
    except Refused as error:
        raise _refused({"error": "; ".join(error.problems)}) from None
    if ask.query.get("check_hash") == "1" and not report.changes:
        return 304, None
    found: Doc = {}
    for entity in ENTITIES.values():
        rows = rows_of(entity).order_by("created_at", "pk")
        if shown := {str(row.pk): entity.show(row) for row in rows.iterator(chunk_size=400)}:
            found[entity.name] = shown
    if report.skipped:
        # Kong would not say so, but keeps certificates and the like.
        found["_skipped"] = [f"{what}: {why}" for what, why in report.skipped]
    return 201, found


def _document(ask: Ask, text: Any) -> Any:
    """The file's values: the body itself, or what stands under `config` in it."""
    kind = str(ask.request.META.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    if kind in _YAML:
        raw = raw_body(ask.request, text.MAX_BYTES)
        if not raw.strip():
            raise plain(400, "expected a declarative configuration")
        return text.load(raw, end=False)
    sent = read_body(ask.request, text.MAX_BYTES).doc
    if "_format_version" in sent:
        return sent
    given = sent.get("config")
    if not isinstance(given, str) or not given:
        raise plain(400, "expected a declarative configuration")
    return text.load(given.encode("utf-8", "surrogatepass"), end=False)


def _invalid(found: Any, flat: bool) -> KongError:
    from ..portability.kong_problems import flattened, tree

    if not flat:
        return _refused(tree(found))
    items, rest = flattened(found)
    return _refused(rest, flattened_errors=items)


def _refused(fields: Mapping[str, Any], **more: Any) -> KongError:
    body = {"code": 14, "name": _NAME, "message": f"{_INVALID}{in_lua(fields)}", "fields": dict(fields), **more}
    return KongError(400, body)


def in_lua(value: Any) -> str:
    """A value as Lua's pretty printer writes it on one line: `{services={{host="…"},[3]="…"}}`."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(name)}={in_lua(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        parts, whole = [], True
        for place, item in enumerate(value, 1):
            whole = whole and item is not None
            if item is not None:
                parts.append(in_lua(item) if whole else f"[{place}]={in_lua(item)}")
        return "{" + ",".join(parts) + "}"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f"[{in_lua(name)}]"
