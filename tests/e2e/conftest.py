"""What several modules serve and only add to: starting one costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installed import Site, prepared
from tests.support.proxied import Proxied


@pytest.fixture(scope="session")
def gateway() -> Iterator[Proxied]:
    """A served gateway; `lead` gives every test a host name, and so a route, of its own."""
    with Proxied() as served:
        yield served


@pytest.fixture(scope="session")
def embedded(installed: Path) -> Iterator[Site]:
    """The example site with the installed wheel, migrated, with consumers, a route and the service behind it."""
    with prepared(installed) as site:
        yield site
