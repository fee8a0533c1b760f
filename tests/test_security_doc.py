"""The numbered list that opens docs/security.md says in which order requests are checked. Here it is held to that.

Each reason in the list has a fault below that provokes it. Every two faults are put into one request, and the one
that stands earlier in the list must be the answer.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hmac_gateway.core.credential import Consumer, Credential, Secret
from hmac_gateway.core.reasons import Reason
from hmac_gateway.gate import Step, pipeline
from hmac_gateway.plugins import hmac_auth
from hmac_gateway.routing import Route, Router
from hmac_gateway.snapshot import Snapshot, lookups
from hmac_gateway.stores import MemoryStore, RefusingStore
from proxy.gateway import Gateway
from proxy.plan import Forward
from proxy.transport import Timeouts

from .support.engine import ALICE, BOB, DATE, NOW, mac64, step

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text()

BODY = b"hello"
DIGEST = "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # openssl dgst -sha256 of "hello"
STALE = "Sat, 05 Nov 1994 08:49:37 GMT"


@dataclass
class Case:
    """A request that is right in everything, and what it meets; faults change it."""

    loaded: bool = True
    path: str = "/orders"
    host: bool = True
    word: str = "Signature "
    authorization: bool = True
    key_id: str = "key-1"
    algorithm: str = "hmac-sha256"
    date: str | None = DATE
    nonce: bool = True
    digest: str | None = DIGEST
    unsigned: set[str] = field(default_factory=set)
    mac: Callable[[str], str] = mac64
    twice: bool = False
    body: bytes = BODY
    announced: int = len(BODY)
    known: bool = True
    credential: dict[str, Any] = field(default_factory=dict)
    secrets: bool = True
    other: Consumer = ALICE
    store: Any = None
    used: bool = False

    def head(self) -> list[tuple[bytes, bytes]]:
        sent = {"host": "gateway.test"} if self.host else {}
        sent["content-length"] = str(self.announced)
        sent |= {"date": self.date} if self.date is not None else {}
        sent |= {"x-nonce": "1"} if self.nonce else {}
        sent |= {"digest": self.digest} if self.digest is not None else {}
        listed = [name for name in ("date", "x-nonce", "digest") if name not in self.unsigned]
        string = f"{self.key_id}\n" + "".join(f"{name}: {sent[name]}\n" for name in listed if name in sent)
        headers = list(sent.items())
        if self.authorization:
            fields = {"keyId": self.key_id, "algorithm": self.algorithm, "headers": " ".join(listed)}
            fields["signature"] = self.mac(string)
            value = ",".join(f'{name}="{text}"' for name, text in fields.items() if text)
            headers.append(("authorization", self.word + value))
        if self.twice:
            headers += [("proxy-authorization", "x")] * 2
        return [(name.encode(), value.encode()) for name, value in headers]

    def snapshot(self) -> Snapshot | None:
        if not self.loaded:
            return None
        live = (Secret(b"s3cret"),) if self.secrets else ()
        first = Credential("1", ALICE, "hmac-auth", "key-1", lambda now: live, **self.credential)
        second = replace(first, id="2", consumer=self.other, plugin="second-auth")
        tables = {"hmac-auth": {"key-1": first}, "second-auth": {"key-1": second}} if self.known else {}
        wanted = {
            "allowed_algorithms": ["hmac-sha256"],
            "signed_headers": ["date", "x-nonce"],
            "validate_request_body": True,
            "max_req_body_size": 100,
            "replay_protection": True,
        }
        # The same plugin under another name, so that two apply.
        plugin = SimpleNamespace(**{key: getattr(hmac_auth, key) for key in dir(hmac_auth)})
        plugin.name = plugin.holder = "second-auth"
        also: Step = replace(step(), plugin=plugin, priority=1)
        route = Route(
            "r", ("/orders",), pipeline([step(**wanted), also]), Forward(None, Timeouts(1, 1, 1)), methods=frozenset()
        )
        return Snapshot(1, routes=Router([route]), lookups=lookups(tables))


def never_mac(string: str) -> str:
    return mac64(string, b"wrong")


def set_(**values: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for name, value in values.items():
            setattr(case, name, value)

    return change


def unsigned(name: str) -> Callable[[Case], None]:
    return lambda case: case.unsigned.add(name)


def credential(**values: Any) -> Callable[[Case], None]:
    return lambda case: case.credential.update(values)


FAULTS: dict[Reason, Callable[[Case], None]] = {
    Reason.NOT_CONFIGURED: set_(loaded=False),
    Reason.MALFORMED: set_(host=False),
    Reason.AMBIGUOUS_PATH: set_(path="/orders/%2e%2e/orders"),
    Reason.DUPLICATE_HEADER: set_(twice=True),
    Reason.NO_ROUTE: set_(path="/nowhere"),
    Reason.MISSING: set_(authorization=False),
    Reason.WRONG_SCHEME: set_(word="Hmac "),
    Reason.MALFORMED_AUTHORIZATION: set_(word="Signature:"),
    Reason.INCOMPLETE: set_(key_id=""),
    Reason.ALGORITHM_MISSING: set_(algorithm=""),
    Reason.UNKNOWN_KEY: set_(known=False),
    Reason.CREDENTIAL_DISABLED: credential(enabled=False),
    Reason.CREDENTIAL_NOT_YET_VALID: credential(not_before=NOW + 10.0),
    Reason.CREDENTIAL_EXPIRED: credential(expires_at=NOW - 10.0),
    Reason.ALGORITHM_NOT_ALLOWED: set_(algorithm="hmac-sha1"),
    Reason.DATE_MISSING: set_(date=None),
    Reason.DATE_NOT_SIGNED: unsigned("date"),
    Reason.DATE_INVALID: set_(date="yesterday"),
    Reason.CLOCK_SKEW: set_(date=STALE),
    Reason.HEADER_ABSENT: set_(nonce=False),
    Reason.HEADER_NOT_SIGNED: unsigned("x-nonce"),
    Reason.SECRET_UNAVAILABLE: set_(secrets=False),
    Reason.SIGNATURE_MALFORMED: set_(mac=lambda string: "no base64!"),
    Reason.SIGNATURE_MISMATCH: set_(mac=never_mac),
    Reason.BODY_TOO_LARGE: set_(announced=101),
    Reason.DIGEST_MISSING: set_(digest=None),
    Reason.DIGEST_NOT_SIGNED: unsigned("digest"),
    Reason.DIGEST_MALFORMED: set_(digest="MD5=XUFAKrxLKna5cZ2REBfFkg=="),
    Reason.DIFFERENT_CONSUMERS: set_(other=BOB),
    Reason.DIGEST_MISMATCH: set_(body=b"other"),
    Reason.REPLAY_STORE_UNAVAILABLE: set_(store=RefusingStore("away")),
    Reason.REPLAYED: set_(used=True),
}


class Observer:
    reason = ""

    def finished(self, exchange: Any) -> None:
        self.reason = exchange.reason

    def rejected(self, exchange: Any, rejected: Any) -> None:
        """Not of interest."""


async def answered(case: Case) -> str:
    """The reason that the gateway gives. A request that is right gets as far as its upstream, which is none."""
    snapshot, observer = case.snapshot(), Observer()
    gateway = Gateway(lambda: snapshot, case.store or MemoryStore(10), now=lambda: NOW, observer=observer)
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": case.path.encode(),
        "query_string": b"",
        "headers": case.head(),
        "scheme": "http",
        "http_version": "1.1",
        "client": ("192.0.2.1", 1),
        "server": ("192.0.2.2", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": case.body, "more_body": False}

    async def send(event: Any) -> None:
        """The answer is not of interest."""

    for _ in range(2 if case.used else 1):
        await gateway(dict(scope), receive, send)
    return observer.reason


def documented() -> list[Reason]:
    """The reasons of the numbered list, in its order."""
    start = PAGE.index("\n1. ")
    items = PAGE[start : PAGE.index("\n\n", start)]
    codes = {str(reason) for reason in Reason}
    return [Reason(code) for code in re.findall(r"\(`(\w+)`\)", items) if code in codes]


def test_a_right_request_reaches_its_upstream() -> None:
    assert asyncio.run(answered(Case())) == Reason.NO_UPSTREAM


def test_the_list_names_every_check_once() -> None:
    assert sorted(documented()) == sorted(FAULTS)


def test_the_earlier_check_of_the_list_answers() -> None:
    async def all_pairs() -> list[str]:
        wrong = []
        for early, late in itertools.combinations_with_replacement(documented(), 2):
            case = Case()
            # The earlier last, so that it stays where both change the same thing.
            FAULTS[late](case)
            FAULTS[early](case)
            found = await answered(case)
            if found != early:
                wrong.append(f"{early} and {late}: {found or 'accepted'}")
        return wrong

    assert asyncio.run(all_pairs()) == []
