"""Whose words, statuses and order of checks answer. Used by plugins, the gate and the words. Standard library only."""

from __future__ import annotations

from typing import Final

APISIX: Final = "apisix"
KONG: Final = "kong"
#: Kong 0.x: what its old admin API wrote. Rows have Kong's dialect and a flag; the engine knows one name for both.
LEGACY: Final = "kong-legacy"
#: The command hmacproxy's: plain text, and one answer to whatever is wrong with a signature.
HMACPROXY: Final = "hmacproxy"
