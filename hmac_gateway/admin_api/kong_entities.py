"""All entities of Kong that there are here, by Kong's names. To add one, describe it in a file of its own."""

from __future__ import annotations

from typing import Final

from .kong_consumers import ACLS, CONSUMERS
from .kong_credentials import BASIC_AUTHS, HMAC_AUTHS, JWTS, KEY_AUTHS
from .kong_entity import Entity
from .kong_plugins import PLUGINS_ENTITY
from .kong_routes import ROUTES
from .kong_services import SERVICES
from .kong_upstreams import TARGETS, UPSTREAMS

#: Parents before what refers to them.
ENTITIES: Final[dict[str, Entity]] = {
    entity.name: entity
    for entity in (
        *(SERVICES, ROUTES, CONSUMERS, UPSTREAMS, TARGETS, PLUGINS_ENTITY),
        *(HMAC_AUTHS, KEY_AUTHS, BASIC_AUTHS, JWTS, ACLS),
    )
}

#: By the name of their collection in addresses.
BY_PATH: Final = {entity.path: entity for entity in ENTITIES.values() if entity.path}


def below(parent: Entity) -> dict[str, tuple[Entity, str]]:
    """The collections below an entity's addresses: name → (entity, the field that points back)."""
    return {
        entity.nested or entity.path: (entity, field)
        for entity in ENTITIES.values()
        for field, name in entity.parents.items()
        if name == parent.name
    }
