"""System checks: what a site can get wrong is named with its id, and a hint says what to do.

Registered by `HmacGatewayConfig.ready()`. Those that look into the database run with `check --database` and before
`migrate`, as Django has it. One file per subject; docs/checks.md lists every id.
"""

from __future__ import annotations

from django.core.checks import Tags, register

from . import credentials, keys, middleware, processes, protect, rest, stored, values


def register_checks() -> None:
    """Connect every check of this package to Django's check framework."""
    register(values.check_keys)
    register(values.check_values)
    register(keys.check_encryption_keys, Tags.security)
    register(keys.check_admin_key, Tags.security, deploy=True)
    register(credentials.check_credentials, Tags.security)
    register(credentials.check_short_secrets, Tags.security, deploy=True)
    register(protect.check_protect, Tags.security)
    register(protect.check_policies, Tags.security)
    register(protect.check_policies_deployed, Tags.security, deploy=True)
    register(middleware.check_middleware, Tags.security)
    register(processes.check_replay_store, Tags.security)
    register(processes.check_counter_store, Tags.security)
    register(processes.check_server, Tags.security)
    register(rest.check_authenticators, Tags.security)
    register(rest.check_throttles, Tags.security)
    register(stored.check_plugins, Tags.database)
    register(stored.check_plugins_deployed, Tags.database, deploy=True)
    register(stored.check_site_routes, Tags.database)
    register(stored.check_unread_consumers, Tags.database)
    register(stored.check_collation, Tags.database)
