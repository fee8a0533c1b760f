"""What the database holds: risky policies, routes that protect nothing, consumers nobody reads, collations.

Run with `check --database` and before `migrate`, so tables may be missing or older than the models. Warnings only:
an error would keep `migrate` from mending it. Imports the plugins; models by label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.db import Error, connections, transaction
from django.db.models import Model
from django.middleware.common import CommonMiddleware

from ..core.errors import ConfigError
from ..gate import compile_step
from ..plugins import PLUGINS, is_mandatory, spoken
from . import middleware, policies, protect
from .common import shortened, value
from .policies import Placed

_LABELS: Final = ("hmac_gateway", "hmac_consumers", "hmac_proxy")


def _ask(databases: Sequence[str] | None, label: str, name: str, question: Callable[[Any], list[Any]]) -> list[Any]:
    """What a question to a model's rows finds in these databases; nothing where it has no table yet."""
    if label not in apps.app_configs:
        return []
    model: type[Model] = apps.get_model(label, name)
    found: list[Any] = []
    for alias in databases or ():
        if model._meta.db_table not in connections[alias].introspection.table_names():
            continue  # before the first migrate
        try:
            # Where a transaction is open already, a statement that fails must not spoil it.
            with transaction.atomic(using=alias):
                found += question(model._default_manager.using(alias))
        except Error:
            continue  # a column is still missing
    return found


_COLUMNS: Final = ("name", "config", "dialect", "legacy", "place")


def _plugins(databases: Sequence[str] | None) -> list[dict[str, Any]]:
    return _ask(
        databases,
        "hmac_proxy",
        "Plugin",
        lambda rows: list(rows.filter(enabled=True, name__in=PLUGINS).values(*_COLUMNS)),
    )


def _placed(rows: list[dict[str, Any]]) -> list[Placed]:
    found = []
    for row in rows:
        try:
            step = compile_step(row["name"], row["config"], spoken(row["name"], row["dialect"], row["legacy"]))
        except (ConfigError, TypeError):
            continue  # the runtime tells, with the row's name
        found.append(Placed(row["place"].replace(":", " "), step))
    return found


def check_plugins(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> Iterator[CheckMessage]:
    """What stored configuration allows, and whether the settings can keep what it promises."""
    for alias in databases or ():
        counted = Counter(
            row["place"]
            for row in _plugins([alias])
            if not _switched_off(row["config"]) and is_mandatory(row["config"], row["dialect"])
        )
        several = [place.replace(":", " ") for place, count in counted.items() if count > 1]
        if several:
            yield Warning(
                f"Several authentication plugins stand at: {shortened(several)}. All must hold, for one consumer.",
                hint="Keep one of them, unless callers are meant to send several credentials at a time.",
                id="hmac_gateway.W007",
            )
    found = _placed(_plugins(databases))
    yield from policies.weak(found)
    yield from policies.forgotten(found)


def _switched_off(config: Any) -> bool:
    # A row that no validation saw may hold anything.
    meta = config.get("_meta") if isinstance(config, dict) else None
    return bool(meta.get("disable")) if isinstance(meta, dict) else False


def check_plugins_deployed(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """What imported configuration may ask for as it is, and a new one should not. With `check --deploy`."""
    found = _placed(_plugins(databases))
    yield from policies.targets(found)
    yield from policies.skews(found)


def check_site_routes(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """Routes for this site are enforced, and cannot be evaded by naming another host."""
    rows = _ask(
        databases,
        "hmac_proxy",
        "Route",
        lambda rows: list(rows.filter(enabled=True, this_site=True).values_list("id", "hosts")),
    )
    if not rows:
        return
    chain = middleware.items()
    places = {f"route {key}" for key, _ in rows}
    where = shortened(places)
    if not middleware.places(chain):
        yield Warning(
            f"These routes for this site protect nothing, since HmacGatewayMiddleware is not in MIDDLEWARE: {where}.",
            hint="Add 'hmac_gateway.middleware.HmacGatewayMiddleware' right after SecurityMiddleware.",
            id="hmac_gateway.W009",
        )
    elif value("CREDENTIALS"):
        yield Warning(
            f"These routes for this site protect nothing, since HMAC_GATEWAY['CREDENTIALS'] is set and no table is "
            f"read: {where}.",
            hint="Remove CREDENTIALS, or protect the addresses in PROTECT and delete the routes.",
            id="hmac_gateway.W009",
        )
    own = [found for found in _placed(_plugins(databases)) if found.where in places]
    if middleware.bodies_are_checked(own) and not middleware.bodies_are_checked(protect.placed()):
        yield from middleware.readers(chain)
    limited = [f"route {key}" for key, hosts in rows if hosts]
    if limited and "*" in settings.ALLOWED_HOSTS:
        yield Warning(
            "ALLOWED_HOSTS allows any host: whoever sends another one evades the routes for this site that are limited "
            f"to hosts: {shortened(limited)}.",
            hint="List the site's host names in ALLOWED_HOSTS, or remove the hosts of these routes.",
            id="hmac_gateway.W019",
        )
    elif limited and not any(item.like(CommonMiddleware) for item in chain):
        yield Warning(
            "CommonMiddleware is not in MIDDLEWARE, so nobody compares hosts with ALLOWED_HOSTS: whoever sends another "
            f"one evades the routes for this site that are limited to hosts: {shortened(limited)}.",
            hint="Add 'django.middleware.common.CommonMiddleware', or remove the hosts of these routes.",
            id="hmac_gateway.W022",
        )


def check_unread_consumers(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """Nobody waits for a stored consumer to be let in that settings-only mode does not know."""
    if not value("CREDENTIALS"):
        return
    if _ask(databases, "hmac_consumers", "Consumer", lambda rows: list(rows.values_list("pk", flat=True)[:1])):
        yield Warning(
            "The database holds consumers, but HMAC_GATEWAY['CREDENTIALS'] is set: for this site's requests only those "
            "in CREDENTIALS count.",
            hint="Remove CREDENTIALS to use the stored ones.",
            id="hmac_gateway.W015",
        )


_OUR_COLUMNS: Final = """
    SELECT table_name, column_name, collation_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND collation_name IS NOT NULL AND table_name IN ({})
"""
_DEFAULT: Final = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = DATABASE()"


def check_collation(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """MariaDB and MySQL tell `Key` from `key`: ids, key ids and user names are case sensitive."""
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "mysql":
            continue
        tables = [model._meta.db_table for model in apps.get_models() if model._meta.app_label in _LABELS]
        with connection.cursor() as cursor:
            cursor.execute(_OUR_COLUMNS.format(", ".join(["%s"] * len(tables))), tables)
            columns = cast("list[tuple[str, str, str]]", cursor.fetchall())
            wrong = [f"{table}.{column}" for table, column, collation in columns if not _exact(collation)]
            if not columns:
                # Before the first migrate: tables will get the database's.
                cursor.execute(_DEFAULT)
                wrong = [f"the database's default {row[0]}" for row in cursor.fetchall() if not _exact(row[0])]
        if wrong:
            yield Warning(
                f"Ids and keys that differ in case only are the same for the database {alias!r}: {shortened(wrong)}.",
                hint="ALTER DATABASE … CHARACTER SET utf8mb4 COLLATE utf8mb4_bin before the first migrate; tables that "
                "exist: ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin.",
                id="hmac_gateway.W021",
            )


def _exact(collation: str) -> bool:
    return collation.startswith("utf8mb4") and collation.endswith(("_bin", "_cs"))
