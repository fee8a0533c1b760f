"""Fixtures of the admin API's tests."""

from __future__ import annotations

from typing import Any

import pytest

from .support import Api


@pytest.fixture(autouse=True)
def no_static_files(settings: Any) -> None:
    """Static files are not under test, and their middleware warns when there are none."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "whitenoise" not in name]


@pytest.fixture
def api(db: None) -> Api:
    return Api()
