"""One served gateway for all modules that only add routes to it: starting one costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.proxied import Proxied


@pytest.fixture(scope="session")
def gateway() -> Iterator[Proxied]:
    """A served gateway; `lead` gives every test a host name, and so a route, of its own."""
    with Proxied() as served:
        yield served
