"""Whose word about a connection counts: the addresses in TRUSTED_PROXIES. Standard library and `errors` only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from .core.errors import ConfigError


def trust(addresses: Iterable[str]) -> Callable[[str], bool]:
    """A predicate over peers' addresses; raises ConfigError for an entry that is no address and no network."""
    networks = []
    for text in addresses:
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            raise ConfigError("TRUSTED_PROXIES", text, "IP addresses and networks, as in 10.0.0.0/8") from None
    if not networks:
        return lambda address: False

    @lru_cache(maxsize=4096)
    def trusted(address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in networks)

    return trusted
