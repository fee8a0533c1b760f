"""How many examples the property tests try: few in the suite, many in `script/fuzz`."""

from __future__ import annotations

import os

#: `script/fuzz` sets it.
FACTOR = int(os.environ.get("HMAC_GATEWAY_FUZZ", "1"))


def examples(number: int) -> int:
    """`number` in the suite, a multiple of it in the longer run."""
    return number * FACTOR
