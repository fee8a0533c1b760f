"""Reading and writing any resource of `apisix_resources`: PUT, POST, PATCH, GET, list, DELETE, without HTTP.

Every write is one transaction under one version. The version row's lock is taken first, so what is checked inside
(references, duplicates, uses) cannot be made untrue by another writer before the commit.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils import timezone

from ..entities import one_version
from ..validators import validate_key
from . import audit
from .apisix_resources import CREDENTIALS, Resource
from .apisix_text import check_schema
from .apisix_upstreams import GROUP_LABEL, UNSUPPORTED
from .errors import ApiError, from_model, not_found, refuse
from .fields import CREATED_INDEX, TTL_END, Doc, fill, kept, show
from .writing import AT_ONCE, Writer

#: The document's stamps, which only the server writes.
_STAMPS: Final = ("create_time", "update_time")
#: Keys that hold an object's id, which may be a number.
_IDS: Final = frozenset(["id", "service_id", "upstream_id", "plugin_config_id", "group_id"])
#: Keys whose object may be empty.
_MAPS: Final = frozenset(["plugins", "labels"])


@dataclass(frozen=True, slots=True)
class Call:
    """What a request says besides its document. `ttl` is in seconds; `owner` the consumer of a credential.

    `via` is the way by which the change came, and `key` the id of the admin key, for the audit.
    """

    actor: str
    ttl: float | None = None
    group: str = ""
    owner: str | None = None
    via: str = "apisix-api"
    key: str = ""

    @property
    def who(self) -> Doc:
        """What the audit says about the key."""
        return {"key": self.key} if self.key else {}


def key_of(resource: Resource, row: Any, call: Call) -> str:
    """The `key` of answers, such as /apisix/routes/1."""
    base = f"/apisix/consumers/{call.owner}" if resource is CREDENTIALS else "/apisix"
    return f"{base}/{resource.name}/{str(getattr(row, resource.key)).removeprefix(resource.prefix)}"


def rows_of(resource: Resource, call: Call) -> Any:
    """The rows that the resource's addresses mean; none for an unknown consumer's credentials."""
    return _rows(resource, call).exclude(expires_at__lte=timezone.now())


def _rows(resource: Resource, call: Call) -> Any:
    """Expired ones included."""
    rows = apps.get_model(resource.model)._default_manager.filter(**resource.scope)
    if resource is not CREDENTIALS:
        return rows
    owner = find_owner(call)
    return rows.none() if owner is None else rows.filter(consumer=owner)


def find_owner(call: Call) -> Any:
    """The consumer whose credentials are meant, or None."""
    rows = apps.get_model("hmac_consumers.Consumer")._default_manager.exclude(expires_at__lte=timezone.now())
    return rows.filter(username=call.owner).first()


def find(resource: Resource, key: str, call: Call) -> Any:
    """The row with that id, or None."""
    rows = rows_of(resource, call)
    if not _addressable(resource, key):
        return None
    found = rows.filter(**{resource.key: resource.prefix + key}).first()
    if found is None and resource.prefix:
        found = rows.filter(**{resource.key: key}).first()
    return found


def _addressable(resource: Resource, key: str) -> bool:
    if resource.key == "username":
        return "\0" not in key and len(key) <= 256
    try:
        validate_key(key)
    except ValidationError:
        return False
    return True


def value_of(resource: Resource, row: Any) -> Doc:
    """The object as APISIX shows it: what was sent, with id, create_time and update_time; secrets masked."""
    value = show(resource.fields, row, resource.elsewhere)
    for part in resource.parts:
        value.update(part.show(row))
    value["create_time"] = int(row.created_at.timestamp())
    value["update_time"] = int(row.updated_at.timestamp())
    return value


def indexed(resource: Resource, row: Any, call: Call) -> Doc:
    """The envelope of GET and lists. Indexes are versions of the configuration."""
    created = row.extra.get(CREATED_INDEX) if isinstance(row.extra, dict) else None
    return {
        "key": key_of(resource, row, call),
        "value": value_of(resource, row),
        "createdIndex": created if isinstance(created, int) else row.changed_at_version,
        "modifiedIndex": row.changed_at_version,
    }


# --- reading ---


def get(resource: Resource, key: str, call: Call) -> Doc:
    """One object. Raises ApiError 404."""
    row = find(resource, key, call)
    if row is None:
        raise not_found()
    return indexed(resource, row, call)


def listing(resource: Resource, call: Call, query: Mapping[str, str]) -> Doc:
    """All objects by creation, filtered by name and uri (regular expressions) and label (its key), then paged.

    `total` counts what passed the filters. Raises ApiError 400 for a page_size outside 10..500, and 404 where a
    consumer has no credentials: etcd has nothing there, while it keeps an entry for each kind of object.
    """
    rows = rows_of(resource, call).order_by("created_at", "pk")
    if resource is CREDENTIALS and not rows.exists():
        raise not_found()
    targets = _filter_argument(query.get("filter", ""))
    for column in ("service_id", "upstream_id"):
        if column in targets and resource.name == "routes":
            rows = rows.filter(**{column: targets[column]})
    keep = [_by_name(query), _by_uri(query), _by_label(query)]
    keep = [test for test in keep if test is not None]
    window = _window(query)
    if not keep:
        total = rows.count()
        shown = rows[window] if window else rows
        found = _loaded(resource, shown)
    else:
        found = [row for row in _loaded(resource, rows) if all(test(row) for test in keep)]
        total = len(found)
        found = found[window] if window else found
    return {"list": [indexed(resource, row, call) for row in found], "total": total}


def _loaded(resource: Resource, rows: Any) -> list[Any]:
    # In portions: the query for 10,000 inline upstreams at once is too large for SQLite.
    return list(rows.prefetch_related(*resource.prefetch).iterator(chunk_size=400))


def _filter_argument(text: str) -> dict[str, str]:
    return {key: value for key, value in parse_qsl(text) if "\0" not in value}


def _window(query: Mapping[str, str]) -> slice | None:
    if "page" not in query or "page_size" not in query:
        return None
    size = _integer(query["page_size"])
    if size is None or not 10 <= size <= 500:
        raise ApiError(400, "page_size must be between 10 and 500")
    page = _integer(query["page"])
    if page is None or not 1 <= page <= 2**31:
        page = 1
    return slice((page - 1) * size, page * size)


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _by_name(query: Mapping[str, str]) -> Any:
    if "name" not in query:
        return None
    pattern = _regex("name", query["name"])
    return lambda row: pattern.search(row.name) is not None


def _by_uri(query: Mapping[str, str]) -> Any:
    if "uri" not in query:
        return None
    pattern = _regex("uri", query["uri"])
    return lambda row: any(pattern.search(str(path)) for path in getattr(row, "paths", ()))


def _by_label(query: Mapping[str, str]) -> Any:
    if "label" not in query:
        return None
    # APISIX names the key; with a value after a colon it must be equal, too.
    key, colon, text = query["label"].partition(":")
    return lambda row: key in row.labels and (not colon or row.labels[key] == text)


def _regex(name: str, text: str) -> re.Pattern[str]:
    # At most two places with a choice and none on a group: each choice, an optional character or an alternative
    # included, can double the time of a search that fails.
    choices = len(re.findall(r"[*+{?|]", text))
    if len(text) > 256 or choices > 2 or re.search(r"\)[*+{?]", text):
        raise refuse(f"invalid argument {name}: the regular expression is too complex")
    try:
        return re.compile(text)
    except (re.error, OverflowError):
        raise refuse(f"invalid argument {name}: not a regular expression") from None


# --- writing ---


def put(resource: Resource, key: str | None, doc: Any, call: Call) -> tuple[bool, Doc]:
    """Create or replace an object; `key` is the address's. Returns whether it is new, and the answer."""
    doc = _identified(resource, key, doc)
    check(resource, doc)
    with one_version() as version:
        row = find(resource, str(doc[resource.key_field]), call)
        expired = make_room(resource, str(doc[resource.key_field]), call) if row is None else None
        return row is None, _write(resource, row or expired, doc, call, version)


def make_room(resource: Resource, key: str, call: Call) -> Any:
    """Make room for an object whose id an expired one still holds; that one, where others may refer to it."""
    rows = _rows(resource, call).filter(expires_at__lte=timezone.now())
    for row in rows.filter(**{f"{resource.key}__in": [key, resource.prefix + key]}):
        if resource.uses:
            row.expires_at = None
            return row
        row.delete()
    return None


def post(resource: Resource, key: str | None, doc: Any, call: Call) -> Doc:
    """Create an object under an id of 20 digits, as APISIX has them; `key`, the address's, must not be there."""
    doc = _given(doc)
    if key is not None or "id" in doc:
        raise refuse(f"wrong {resource.kind} id, do not need it")
    _refuse_stamps(doc)
    doc = {**doc, "id": f"{secrets.randbelow(10**20):020d}"}
    check(resource, doc)
    with one_version() as version:
        return _write(resource, None, doc, call, version)


def patch(resource: Resource, key: str, path: str, change: Any, call: Call) -> Doc:
    """Merge `change` into an object, or put it at a path inside it. Objects merge, null deletes, lists are replaced."""
    if not path and not isinstance(change, dict):
        raise refuse("invalid configuration")
    with one_version() as version:
        row = find(resource, key, call)
        if row is None:
            raise not_found()
        value = value_of(resource, row)
        changed = _placed(value, path.split("/"), 0, change) if path else _merged(value, change)
        if not isinstance(changed, dict):
            raise refuse("invalid configuration")
        doc = {name: item for name, item in changed.items() if name not in _STAMPS}
        doc = _identified(resource, None, {"id": key, **doc} if resource.key_field == "id" else doc)
        if str(doc[resource.key_field]) != key:
            raise refuse(f"wrong {resource.kind} id")
        check(resource, doc)
        return _write(resource, row, doc, call, version)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = dict(old)
    for key, item in new.items():
        if item is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), item)
    return merged


def _placed(old: Any, path: list[str], depth: int, new: Any) -> Any:
    """`old` with `new` at `path`, of which the first `depth` names have led to `old`; objects on the way are made."""
    if depth == len(path):
        return new
    name = path[depth]
    if isinstance(old, list):
        # Lua counts from 1; the admin API's documentation counts its list items from 0.
        place = _integer(name)
        if place is None or place >= len(old):
            raise _no_place(path, depth + 1)
        items = list(old)
        items[place] = _placed(old[place], path, depth + 1, new)
        return [item for item in items if item is not None]
    if not isinstance(old, dict):
        raise _no_place(path, depth)
    changed = dict(old)
    below = old.get(name, {} if depth + 1 < len(path) else None)
    item = _placed(below, path, depth + 1, new)
    if item is None:
        changed.pop(name, None)
    else:
        changed[name] = item
    return changed


def _no_place(path: list[str], depth: int) -> ApiError:
    return refuse(f"invalid sub-path: /{'/'.join(path[:depth])}")


def _given(doc: Any) -> Doc:
    if not isinstance(doc, dict):
        raise refuse("missing configurations")
    return {key: _read(key, item) for key, item in doc.items()}


def _read(key: str, item: Any) -> Any:
    """A value in the one form of several that mean the same."""
    if key in _IDS and isinstance(item, float) and item.is_integer():
        # 1 and 1.0 are one number in JSON, and so one id.
        return int(item)
    if key in _MAPS and item == []:
        # Lua cannot tell them apart, so APISIX takes what PHP and Lua write for an empty object.
        return {}
    if key == "plugins" and isinstance(item, dict):
        return {name: {} if config == [] else config for name, config in item.items()}
    return item


def _refuse_stamps(doc: Doc) -> None:
    for place, inside in (("", doc), ("upstream.", doc.get("upstream")), ("plugins.", doc.get("plugins"))):
        for name in _STAMPS:
            if isinstance(inside, dict) and name in inside:
                raise refuse(f"the property is forbidden:  {place}{name}")


def _identified(resource: Resource, key: str | None, given: Any) -> Doc:
    """The document with its id, from the address (a text) or the body (as it is there)."""
    doc = _given(given)
    if resource.key_field == "username":
        if key is not None and "username" in doc and doc["username"] != key:
            raise refuse("wrong username")
    else:
        if key is None and "id" not in doc:
            raise refuse(f"missing {resource.kind} id")
        if key is not None and "id" in doc and str(doc["id"]) != key:
            raise refuse(f"wrong {resource.kind} id")
        if key is not None:
            doc = {**doc, "id": key}
    _refuse_stamps(doc)
    return doc


def check(resource: Resource, doc: Doc) -> None:
    """Refuse (ApiError) what is wrong with a document by itself; no database."""
    for inside, unsupported in ((doc, resource.unsupported), (doc.get("upstream"), UNSUPPORTED)):
        for name, why in unsupported.items():
            if isinstance(inside, dict) and name in inside:
                raise refuse(f"`{name}` {why}")
    for one, many in resource.exclusive:
        if one in doc and many in doc:
            raise refuse(f"only one of {one} or {many} is allowed")
    check_schema(doc, resource.schema)
    for part in resource.parts:
        part.check(doc)
    for rule in resource.rules:
        rule(doc)


def _write(resource: Resource, row: Any, doc: Doc, call: Call, version: int) -> Doc:
    check_links(resource, doc)
    saved, after = write(resource, row, doc, call, version)
    return {"key": key_of(resource, saved, call), "value": after}


def write(
    resource: Resource, row: Any, doc: Doc, call: Call, version: int, finish: Callable[[Any], None] = lambda row: None
) -> tuple[Any, Doc]:
    """Write a document that passed `check` over `row` (None: a new one), and the audit. Returns the row and its value.

    `finish` may set columns that documents know nothing of. Runs under the version lock; raises ApiError.
    """
    adding = row is None
    before = None if adding else value_of(resource, row)
    row = put_rows(resource, row, doc, call, version, AT_ONCE, finish)
    # Read again: columns as the database has them, relations as they are now.
    saved = type(row)._default_manager.get(pk=row.pk)
    after = value_of(resource, saved)
    names = audit.changed_fields(before, after)
    secret = bool(getattr(row, "secret_changed", False))
    if secret and "plugins" not in names:
        names.append("plugins")
    more = {**audit.values(names, before, after, secret), **call.who}
    audit.record(call.actor, "added" if adding else "changed", saved, call.via, names, more)
    return saved, after


def put_rows(
    resource: Resource,
    row: Any,
    doc: Doc,
    call: Call,
    version: int,
    writer: Writer,
    finish: Callable[[Any], None] = lambda row: None,
) -> Any:
    """Fill `row` (None: a new one) and the rows below it from a document and hand them to `writer`. Raises ApiError."""
    model: Any = apps.get_model(resource.model)
    adding = row is None
    if row is None:
        row = model(**resource.own)
        if resource is CREDENTIALS:
            owner = find_owner(call)
            if owner is None:
                raise refuse("consumer not found", 404)
            row.consumer = owner
    created = version if adding else row.extra.get(CREATED_INDEX, row.changed_at_version)
    place = None if adding else row.pk
    fill(row, resource.fields, doc)
    if resource.prefix:
        row.pk = place or resource.prefix + row.pk
    if call.group:
        row.labels = {GROUP_LABEL: call.group, **row.labels}
    if resource.scope.get("dialect"):
        row.dialect = "apisix"
    ttl_end = row.extra.get(TTL_END)
    row.extra = {**kept(resource.fields, doc, resource.elsewhere), CREATED_INDEX: created}
    if call.ttl is not None:
        row.expires_at = timezone.now() + timedelta(seconds=call.ttl)
        row.extra[TTL_END] = row.expires_at.isoformat()
    elif row.expires_at is not None and row.expires_at.isoformat() == ttl_end:
        # As in etcd, a write without a ttl ends an earlier one; an end that the console set stays.
        row.expires_at = None
    if "plugins" in doc:
        # Says that the key was sent; what it held stands in rows.
        row.extra["plugins"] = {}
    try:
        for part in resource.parts:
            part.before_save(row, doc, writer)
        finish(row)
        writer.save(row)
        for part in resource.parts:
            part.after_save(row, doc, writer)
    except ValidationError as error:
        raise from_model(error) from None
    return row


def check_links(resource: Resource, doc: Doc) -> None:
    """Refuse (ApiError) ids of objects that are not there."""
    for link in resource.links:
        if link.key not in doc:
            continue
        rows = apps.get_model(link.model)._default_manager.exclude(expires_at__lte=timezone.now())
        if not rows.filter(pk=str(doc[link.key]), **link.scope).exists():
            words = f"failed to fetch {link.kind} info by {link.kind} id [{doc[link.key]}]"
            raise refuse(f"{words}, response code: 404")


def delete(resource: Resource, key: str | None, force: bool, call: Call) -> Doc:
    """Delete an object and what belongs to it. Raises ApiError 400 while it is in use, unless forced.

    By force, what used it is switched off: it would otherwise run without the plugins, or towards another upstream.
    """
    if key is None:
        raise refuse(f"missing {resource.kind} id")
    with one_version():
        row = find(resource, key, call)
        if row is None:
            raise not_found()
        for use in resource.uses:
            users = apps.get_model(use.model)._default_manager.filter(**{use.column: row}).order_by("created_at", "pk")
            for user in users:
                if not force:
                    name = getattr(user, use.named) or user.pk
                    raise refuse(f"{resource.delete_words} {use.kind} [{name}] is still using it now")
                names = [use.column, "enabled"]
                before = {use.column: str(row.pk), "enabled": user.enabled}
                setattr(user, use.column, None)
                user.enabled = False
                user.save()
                more = audit.values(names, before, {use.column: None, "enabled": False})
                audit.record(call.actor, "changed", user, call.via, names, {**more, **call.who})
        answer = {"deleted": "1", "key": key_of(resource, row, call)}
        gone = value_of(resource, row)
        names = audit.changed_fields(None, gone)
        audit.record(call.actor, "deleted", row, call.via, names, {**audit.values(names, gone, None), **call.who})
        row.delete()
        return answer
