"""Fixtures of the tests of Kong's admin API."""

from __future__ import annotations

import pytest

from .support import Kong


@pytest.fixture
def kong(db: None) -> Kong:
    return Kong()
