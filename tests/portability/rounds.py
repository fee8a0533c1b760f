"""`DATABASE_URL=… python -m tests.portability.rounds`: there and back on an empty database of any kind.

The databases' own tests run it in a process of its own, since Django's settings name one database per process.
"""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


def main() -> None:
    """Raise AssertionError where something is lost, or changes though nothing did."""
    import django

    django.setup()
    from django.core.management import call_command

    from hmac_gateway.portability import text
    from hmac_gateway.portability.apisix_export import export_document

    from .configurations import FULL, enriched
    from .support import HERE, again, everything, refused, take, yaml_of

    call_command("migrate", verbosity=0)
    document = text.load((HERE / "apisix.yaml").read_bytes())
    take(document)
    before = everything()
    assert take(document).changes == []
    assert take(document, dry_run=True).changes == []
    assert everything() == before
    again()
    take(FULL)
    enriched()
    written = again()
    assert "previous-secret" in written
    # All or nothing, also where only the database sees what is wrong.
    found = export_document(True).document
    found["hmac_gateway"]["consumers"]["acme"]["custom_id"] = "same"
    found["hmac_gateway"]["consumers"]["bob"]["custom_id"] = "same"
    found["routes"][0]["desc"] = "changed"
    assert refused(found)
    assert yaml_of() == written
    # A key moves from one consumer to another, and back.
    acme = {"hmac-auth": {"key_id": "acme", "secret_key": "x"}}
    moved = {"consumers": [{"username": "acme"}, {"username": "bob", "plugins": acme}]}
    assert len(take(moved).changes) == 2
    take({"consumers": [{"username": "acme", "plugins": acme}, {"username": "bob"}]})
    take({}, prune=True)
    assert not yaml_of().count("id:")
    kongs()
    print("done")


def kongs() -> None:
    """The same for kong.yml."""
    from . import kong, test_kong_round_trip, test_kong_upsert

    kong.take(kong.file())
    assert kong.take(kong.file()).changes == []
    kong.again()
    test_kong_round_trip.enriched(key_ends=False)
    assert "the-new-one" in kong.again()
    kong.take(kong.document(), prune=True)
    test_kong_upsert.test_names_that_change_places()


if __name__ == "__main__":
    main()
