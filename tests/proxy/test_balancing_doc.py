"""docs/balancing.md is held to the code: its tables have a row for everything there is, and no more."""

from __future__ import annotations

import re
from pathlib import Path

from hmac_gateway.admin_api.apisix_schemas import UPSTREAM
from hmac_gateway.validators import TLS_FILES
from proxy import balancers, hashing
from proxy.models import BALANCERS, HASH_ON

TEXT = (Path(__file__).parents[2] / "docs" / "balancing.md").read_text()


def rows(heading: str) -> list[str]:
    """The first cells of the table below a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    section = section.partition("| --- ")[2]
    return re.findall(r"^\| `([^`]+)` ", section, re.M)


def test_types() -> None:
    assert sorted(rows("Types")) == sorted(BALANCERS)


def test_hash_keys() -> None:
    assert rows("Hash keys") == list(HASH_ON["apisix"])


def test_fields() -> None:
    known = set(UPSTREAM["properties"])
    elsewhere = {"type", "hash_on", "key", "retries", "retry_timeout", "upstream_host", "tls"}
    common = {"id", "name", "desc", "labels", "gateway_group_id"}
    told = rows("Everything else")
    assert {name for name in told if not name.startswith("tls.")} == known - elsewhere - common
    assert [name for name in told if name.startswith("tls.")] == [f"tls.{name}" for name in ("verify", *TLS_FILES)]
    assert all(f"`{name}`" in TEXT for name in elsewhere - {"tls"})


def test_numbers() -> None:
    assert f"loses its say over {balancers.DECAY:g} seconds" in TEXT
    assert f"{hashing.SLOTS:,} slots" in TEXT
