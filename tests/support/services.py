"""What to do where something the tests need is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip with the reason; fail where all services are required."""
    if os.environ.get("HMAC_GATEWAY_TEST_SERVICES") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
