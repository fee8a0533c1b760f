"""Consumers, keys and a route to the port given: `python seed.py PORT`."""

import sys

import django
from django.apps import apps

django.setup()


def make(label, **fields):
    return apps.get_model(label)._default_manager.create(**fields)


def key(consumer, plugin, identifier, secret):
    made = apps.get_model("hmac_consumers.Credential")(consumer=consumer, plugin=plugin, identifier=identifier)
    made.set_secret(secret)
    made.full_clean()
    made.save()


partner = make("hmac_consumers.Consumer", username="partner")
key(partner, "hmac-auth", "client-1", "my-hmac-secret")
key(partner, "basic-auth", "partner", "pass")
key(make("hmac_consumers.Consumer", username="leaving"), "hmac-auth", "client-2", "my-hmac-secret")
make("hmac_consumers.Consumer", username="guest")
upstream = make("hmac_proxy.Upstream", id="echo")
make("hmac_proxy.Node", upstream=upstream, host="127.0.0.1", port=int(sys.argv[1]))
route = make("hmac_proxy.Route", id="echo", paths=["/echo/*"], upstream=upstream)
policy = {"signed_headers": ["@request-target", "date"], "allowed_algorithms": ["hmac-sha256"]}
make("hmac_proxy.Plugin", name="hmac-auth", route=route, config=policy)
make("consumers.Household", name="Ada", meter="m-1")
