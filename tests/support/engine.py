"""People, keys and pipelines for tests of the engine. Signatures are made here with plain `hmac`."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmac_gateway.core.credential import Consumer, Credential, Lookup, Secret
from hmac_gateway.core.message import Message
from hmac_gateway.gate import Pipeline, Step, pipeline
from hmac_gateway.plugins import hmac_auth
from hmac_gateway.snapshot import lookups

#: Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
NOW = 784111777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"

ALICE = Consumer("1", "alice")
BOB = Consumer("2", "bob")
GUEST = Consumer("3", "guest")
VECTORS = Path(__file__).parent.parent / "vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    """The cases of a file below `tests/vectors`."""
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["cases"]
    return cases


def credential(
    key_id: str = "key-1", *secrets: bytes, consumer: Consumer = ALICE, plugin: str = "hmac-auth", **more: Any
) -> Credential:
    """A credential with live secrets, newest first."""
    live = tuple(Secret(secret) for secret in secrets or (b"s3cret",))
    return Credential(f"credential-{key_id}", consumer, plugin, key_id, lambda now: live, **more)


@dataclass
class People:
    """A directory for the gate."""

    lookups: Mapping[str, Lookup]
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    consumer_ids: Mapping[str, Consumer] = field(default_factory=dict)
    require_same_consumer: bool = True


def directory(*credentials: Credential, require_same_consumer: bool = True, **consumers: Consumer) -> People:
    """A directory that knows some credentials of hmac-auth, and consumers by name."""
    table = {found.identifier: found for found in credentials}
    return People(lookups({"hmac-auth": table}), consumers, require_same_consumer=require_same_consumer)


def step(plugin: Any = hmac_auth, priority: int | None = None, **config: Any) -> Step:
    """One plugin with its configuration."""
    compiled = plugin.compile(config, "apisix")
    return Step(plugin, compiled, plugin.common(compiled), plugin.priority["apisix"] if priority is None else priority)


def steps(**config: Any) -> Pipeline:
    """A pipeline of one hmac-auth."""
    return pipeline([step(**config)])


def mac64(string: str, secret: bytes = b"s3cret", algorithm: str = "hmac-sha256") -> str:
    """The base64 MAC of a signing string."""
    return base64.b64encode(hmac.new(secret, string.encode("latin-1"), algorithm[5:]).digest()).decode()


def authorization(
    string: str,
    listed: Sequence[str] = ("date",),
    *,
    key_id: str = "key-1",
    secret: bytes = b"s3cret",
    algorithm: str = "hmac-sha256",
) -> tuple[str, str]:
    """An `Authorization` header over a string that the test has written."""
    signature = mac64(string, secret, algorithm)
    text = f'keyId="{key_id}",algorithm="{algorithm}",headers="{" ".join(listed)}",signature="{signature}"'
    return ("Authorization", f"Signature {text}")


def signed(
    method: str = "GET",
    target: str = "/",
    *more: tuple[str, str],
    listed: Sequence[str] = ("@request-target", "date"),
    key_id: str = "key-1",
    secret: bytes = b"s3cret",
    algorithm: str = "hmac-sha256",
    date: str = DATE,
    remote_addr: str = "192.0.2.1",
) -> Message:
    """A message signed over `listed`, with a Date unless `date` is empty."""
    headers = [("Host", "gateway.test"), *([("Date", date)] if date else []), *more]
    first = {name.lower(): value for name, value in reversed(headers)}
    string = f"{key_id}\n"
    for item in listed:
        if item == "@request-target":
            string += f"{method} {target}\n"
        elif item.lower() in first:
            string += f"{item}: {first[item.lower()]}\n"
    headers.append(authorization(string, listed, key_id=key_id, secret=secret, algorithm=algorithm))
    return Message(method, target, headers, remote_addr=remote_addr)
