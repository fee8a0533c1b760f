"""The shortest way through everything: configured over REST, served by hmac_serve, verified, forwarded."""

from collections.abc import Iterator

import pytest

from tests.support.echo import EchoUpstream
from tests.support.served import Served, signed


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with EchoUpstream() as echo, Served() as served:
        served.setup(echo.node, plugin={})
        yield served


def test_signed_request_reaches_the_upstream_with_its_identity(gateway: Served) -> None:
    answer = gateway.get("/anything/x?a=1", signed("GET", "/anything/x?a=1"))
    assert answer.status == 200
    seen = answer.json()
    assert seen["url"].endswith("/anything/x?a=1")
    assert seen["headers"]["X-Consumer-Username"] == "hmac-auth-consumer"
    assert seen["headers"]["X-Credential-Identifier"] == "cred"


@pytest.mark.parametrize("change", ["path", "date", "signature", "nothing sent"])
def test_changed_request_is_refused(gateway: Served, change: str) -> None:
    headers = signed("GET", "/anything/x")
    target = "/anything/x"
    if change == "path":
        target = "/anything/y"
    elif change == "date":
        headers["date"] = signed("GET", target, at=1)["date"]
    elif change == "signature":
        headers["authorization"] = headers["authorization"].replace('signature="', 'signature="AAAA')
    else:
        headers = {}
    answer = gateway.get(target, headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'hmac realm="hmac"'
    assert answer.body.endswith(b"}\n")
