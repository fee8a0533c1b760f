"""CREDENTIALS, PROTECT and the policies of single views: settings and code → what requests use.

Called by `site`, which keeps the results, and by the system checks. Imports the gate, `snapshot` and `conf`. Whatever
is wrong is a ConfigError that names the entry and the field, never a secret.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .conf import conf
from .core.credential import Consumer, Credential, Secret, is_reference
from .core.errors import ConfigError
from .gate import Pipeline, Step, compile_step
from .snapshot import Snapshot, lookups

#: What an entry of PROTECT and one of CREDENTIALS may hold.
PROTECT_KEYS: Final = ("path", "plugin", "config", "dialect")
CREDENTIAL_KEYS: Final = ("secret_key", "previous_secret_key", "username", "custom_id", "groups", "labels")

#: User names that serve as an id. Ids go into cache keys, of throttles and of sites: memcached takes no blank there,
#: and 250 characters at most.
_PLAIN: Final = re.compile(r"[\w.@+-]{1,128}", re.ASCII)


def credentials_snapshot(entries: Any) -> Snapshot:
    """A directory made of CREDENTIALS; raises ConfigError naming the key id and the field, never with a secret."""
    if not isinstance(entries, Mapping):
        raise ConfigError("CREDENTIALS", type(entries).__name__, "a dict: {key id: {secret_key, username}}")
    table: dict[str, Credential] = {}
    consumers: dict[str, Consumer] = {}
    for key_id, entry in entries.items():
        where = f"CREDENTIALS[{key_id!r}]"
        if not isinstance(key_id, str) or not key_id:
            raise ConfigError("CREDENTIALS", key_id, "key ids that are texts")
        if not isinstance(entry, Mapping):
            raise ConfigError(where, type(entry).__name__, "a dict with secret_key and username")
        for field in entry:
            if field not in CREDENTIAL_KEYS:
                raise ConfigError(f"{where}.{field}", "(not shown)", f"one of {', '.join(CREDENTIAL_KEYS)}")
        secrets = []
        for field in ("secret_key", "previous_secret_key"):
            text = entry.get(field)
            if text is None and field != "secret_key":
                continue
            if not isinstance(text, str) or not text or is_reference(text):
                raise ConfigError(f"{where}.{field}", "(not shown)", "a text that is not empty and no reference")
            secrets.append(Secret(text.encode()))
        username = entry.get("username", key_id)
        if not isinstance(username, str) or not username:
            raise ConfigError(f"{where}.username", username, "a text")
        labels, groups = entry.get("labels", {}), entry.get("groups", ())
        if not isinstance(labels, Mapping):
            raise ConfigError(f"{where}.labels", labels, "a dict of texts")
        if isinstance(groups, str):
            raise ConfigError(f"{where}.groups", groups, "a list of texts")
        consumer = Consumer(
            id=username if _PLAIN.fullmatch(username) else str(uuid.uuid5(uuid.NAMESPACE_OID, username)),
            username=username,
            custom_id=entry.get("custom_id", ""),
            groups=tuple(groups),
            labels=dict(labels),
        )
        if consumers.setdefault(username, consumer) != consumer:
            raise ConfigError(f"{where}.username", username, "one consumer: entries of a username must agree otherwise")
        live = tuple(secrets)
        table[key_id if key_id.isascii() else key_id.encode().decode("latin-1")] = Credential(
            id=f"settings:{key_id}",
            consumer=consumers[username],
            plugin="hmac-auth",
            identifier=key_id,
            public_id=key_id,
            open_secrets=lambda now, live=live: live,  # type: ignore[misc]
            labels=dict(labels),
        )
    return Snapshot(
        0,
        lookups=lookups({"hmac-auth": table}),
        consumers=consumers,
        require_same_consumer=conf.require_same_consumer,
    )


class Protected(NamedTuple):
    """One entry of PROTECT."""

    path: re.Pattern[str]
    pipeline: Pipeline


def place(number: int, entry: Any) -> str:
    """An entry of PROTECT in words: counted from one, with its path where it has one."""
    path = entry.get("path") if isinstance(entry, Mapping) else entry
    return f"PROTECT entry {number}" + (f" ({path!r})" if isinstance(path, str) else "")


def compile_protect(entries: Any, first: int = 1) -> tuple[Protected, ...]:
    """PROTECT as requests use it; raises ConfigError naming the entry and the field. `first` is the first's number."""
    if isinstance(entries, str | Mapping):
        raise ConfigError("PROTECT", entries, "a list of regexes or dicts")
    compiled = []
    for number, entry in enumerate(entries, first):
        where = place(number, entry)
        given = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping) or not isinstance(given.get("path"), str):
            raise ConfigError(where, entry, "a regex, or a dict with path, plugin and config")
        for field in given:
            if field not in PROTECT_KEYS:
                raise ConfigError(f"{where}: {field}", given[field], f"one of {', '.join(PROTECT_KEYS)}")
        try:
            # A dot is any character: an encoded line end must not lead past a pattern.
            path = re.compile(given["path"], re.DOTALL)
        except re.error as error:
            raise ConfigError(f"{where}: path", given["path"], f"a regular expression; {error}") from None
        compiled.append(Protected(path, (policy(given, where),)))
    return tuple(compiled)


def policy(given: Mapping[str, Any], where: str = "") -> Step:
    """The step of `{plugin, config, dialect}`: hmac-auth in APISIX's dialect where nothing else is said.

    Raises ConfigError; `where` is put before the field's name.
    """
    try:
        return compile_step(
            given.get("plugin", "hmac-auth"),
            given.get("config", {}),
            given.get("dialect", "apisix"),
            max_body=conf.max_body,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.field}" if where else error.field, error.given, error.allowed) from None
