"""What a proxy tells the auth endpoint, and what of it is believed."""

from __future__ import annotations

from string import Formatter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmac_gateway.adapters.auth_request import STYLES, Asked, Originals, asked, originals, refusal, speakers
from hmac_gateway.conf import DEFAULTS
from hmac_gateway.core.dialects import HMACPROXY
from hmac_gateway.core.errors import ConfigError, Rejected
from hmac_gateway.core.message import Message
from hmac_gateway.core.reasons import Reason
from hmac_gateway.core.words import TABLE
from tests.support.fuzz import examples

OWN = "/.hmac-gateway/auth"


def received(*headers: tuple[str, str], host: str = "shop.example:8443", peer: str = "127.0.0.1") -> Message:
    """The auth request as nginx makes it."""
    return Message("GET", OWN, [("Host", host), ("Date", "today"), *headers], "http", None, "1.0", peer)


def told(*headers: tuple[str, str], real_ip: bool = False, host: str = "shop.example:8443") -> Asked | Rejected:
    return asked(received(*headers, host=host), Originals(), True, real_ip)


def message_of(*headers: tuple[str, str], real_ip: bool = False) -> Message:
    found = told(*headers, real_ip=real_ip)
    assert isinstance(found, Asked), found.detail or found.facts
    return found.message


ALL = (
    ("X-Original-Method", "POST"),
    ("X-Original-URI", "/orders?x=1"),
    ("X-Original-Proto", "https HTTP/1.1"),
)


def test_a_proxy_tells_everything() -> None:
    found = told(*ALL)
    assert isinstance(found, Asked)
    original = found.message
    assert found.told
    assert (original.method, original.target) == ("POST", "/orders?x=1")
    assert (original.scheme, original.http_version) == ("https", "1.1")
    assert original.authority == "shop.example:8443"
    assert original.get("date") == "today"
    assert original.target_exact


def test_nobody_else_is_listened_to() -> None:
    message = received(*ALL, ("X-Original-URI", "/twice"), ("X-Real-IP", "10.0.0.1"), peer="192.0.2.1")
    found = asked(message, Originals(), False, False)
    assert isinstance(found, Asked)
    assert found.message is message
    assert not found.told


def test_a_proxy_that_tells_nothing_asks_for_itself() -> None:
    message = received()
    assert asked(message, Originals(), True, True) == Asked(message, False)


@pytest.mark.parametrize(
    ("header", "method", "target", "scheme", "version"),
    [
        (("X-Original-Method", "DELETE"), "DELETE", OWN, "http", "1.0"),
        (("X-Original-URI", "/a"), "GET", "/a", "http", "1.0"),
        (("X-Original-Proto", "HTTP/1.1"), "GET", OWN, "http", "1.1"),
        (("X-Original-Proto", "https"), "GET", OWN, "https", "1.0"),
    ],
)
def test_each_may_be_absent(header: tuple[str, str], method: str, target: str, scheme: str, version: str) -> None:
    found = told(header)
    assert isinstance(found, Asked)
    original = found.message
    assert (original.method, original.target, original.scheme, original.http_version) == (
        method,
        target,
        scheme,
        version,
    )
    assert found.told == (header[0] == "X-Original-URI")


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("/", "/"),
        ("/a?", "/a?"),
        ("/a?b=/../c&d", "/a?b=/../c&d"),
        # As received: what is ambiguous in them is the path rule's business, or nobody's.
        ("//a//b", "//a//b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a/%2e%2e/b", "/a/%2e%2e/b"),
        ("/caf\xc3\xa9", "/caf\xc3\xa9"),
        ("/%zz", "/%zz"),
        ("http://shop.example:8443/a?b", "/a?b"),
        ("HTTPS://Shop.Example:8443/a", "/a"),
        ("http://shop.example:8443", "/"),
        ("http://shop.example:8443?b", "/?b"),
    ],
)
def test_targets(uri: str, target: str) -> None:
    assert message_of(("X-Original-URI", uri)).target == target


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "*",
        "a",
        "?a",
        "/a b",
        "/a\tb",
        "/a?b c",
        "/a\x00",
        "/a\x7f",
        "/a?\x01",
        "/a#b",
        "/a?b#c",
        "shop.example:8443",
        "ftp://shop.example:8443/a",
        "http:/a",
        "http:///a",
        "http://other.example/a",
        "http://shop.example/a",  # another port
        "http://x@shop.example:8443/a",
        "http://shop.example:8443#/a",
        "http://shop.example:8443\\@evil/a",
    ],
)
def test_targets_that_can_be_read_in_two_ways(uri: str) -> None:
    refused = told(("X-Original-URI", uri))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.AMBIGUOUS_PATH
    assert refused.facts["why"]


@pytest.mark.parametrize("method", ["", "GET,POST", "GET POST", "G\tT", "G\xc9T", "GET/", '"', "GET\x00"])
def test_methods_that_are_none(method: str) -> None:
    refused = told(("X-Original-URI", "/"), ("X-Original-Method", method))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("proto", "scheme", "version"),
    [
        ("HTTP/1.0", "http", "1.0"),
        ("HTTP/2.0", "http", "2"),
        ("HTTP/2", "http", "2"),
        ("HTTP/3.0", "http", "3"),
        ("https HTTP/2.0", "https", "2"),
        ("HTTP/1.1 https", "https", "1.1"),
    ],
)
def test_protocols(proto: str, scheme: str, version: str) -> None:
    original = message_of(("X-Original-Proto", proto))
    assert (original.scheme, original.http_version) == (scheme, version)


@pytest.mark.parametrize(
    "proto",
    ["", "HTTP/0.9", "http/1.1", "HTTP/1.1,HTTP/1.1", "HTTP/1.1 HTTP/1.0", "https http", "https  HTTP/1.1", "wsx", "x"],
)
def test_protocols_that_are_none(proto: str) -> None:
    refused = told(("X-Original-URI", "/"), ("X-Original-Proto", proto))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.MALFORMED


def test_a_uri_and_a_protocol_must_agree() -> None:
    uri = ("X-Original-URI", "https://shop.example:8443/")
    assert message_of(uri, ("X-Original-Proto", "HTTP/1.1")).scheme == "https"
    assert message_of(uri, ("X-Original-Proto", "https")).scheme == "https"
    refused = told(uri, ("X-Original-Proto", "http"))
    assert isinstance(refused, Rejected)


@pytest.mark.parametrize("name", ["X-Original-Method", "X-Original-URI", "X-Original-Proto"])
def test_what_is_told_twice_is_refused(name: str) -> None:
    refused = told(*ALL, next(pair for pair in ALL if pair[0] == name))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.DUPLICATE_HEADER
    assert refused.facts == {"header": name.lower()}


@pytest.mark.parametrize(
    ("headers", "believed", "address"),
    [
        ([("X-Real-IP", "203.0.113.7")], True, "203.0.113.7"),
        ([("X-Real-IP", "2001:DB8::7")], True, "2001:db8::7"),
        # The peer's own address would open what is open to the proxy alone.
        ([("X-Real-IP", "203.0.113.7")], False, ""),
        ([], True, ""),
        ([("X-Real-IP", "203.0.113.7"), ("X-Real-IP", "127.0.0.1")], True, ""),
        ([("X-Real-IP", "unix:")], True, ""),
        ([("X-Real-IP", "1.2.3")], True, ""),
        ([("X-Real-IP", 'fe80::1%"')], True, ""),
        # Its first entries are anybody's.
        ([("X-Forwarded-For", "203.0.113.7")], True, ""),
    ],
)
def test_the_clients_address(headers: list[tuple[str, str]], believed: bool, address: str) -> None:
    assert message_of(("X-Original-URI", "/"), *headers, real_ip=believed).remote_addr == address


def test_without_an_original_the_peer_is_the_client() -> None:
    found = asked(received(("X-Real-IP", "203.0.113.7")), Originals(), True, True)
    assert isinstance(found, Asked)
    assert found.message.remote_addr == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "speaks"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_who_may_speak(address: str, speaks: bool) -> None:
    assert speakers(["10.0.0.0/8"])(address) is speaks


def test_names_are_configured() -> None:
    assert originals(DEFAULTS["ORIGINAL_HEADERS"]) == Originals() == originals({})
    names = originals({"method": "X-Forwarded-Method", "uri": "X-Forwarded-Uri", "proto": ""})
    message = received(("X-Forwarded-Method", "PUT"), ("X-Forwarded-Uri", "/a"), *ALL, ("", "x"))
    found = asked(message, names, True, False)
    assert isinstance(found, Asked)
    assert (found.message.method, found.message.target, found.message.http_version) == ("PUT", "/a", "1.0")
    for wrong in ("ngnix", {"url": "x-u"}):
        with pytest.raises(ConfigError, match="ORIGINAL_HEADERS"):
            originals(wrong)


#: As Traefik and Caddy send them, besides what the client sent.
FORWARDED = [
    ("X-Forwarded-Method", "PUT"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "app.example"),
    ("X-Forwarded-Uri", "/a%2Fb?c"),
]


@pytest.mark.parametrize("style", ["traefik", "caddy"])
def test_traefik_and_caddy_tell_the_host_too(style: str) -> None:
    found = asked(received(*FORWARDED, *ALL, host="auth.internal:9080"), STYLES[style], True, False)
    assert isinstance(found, Asked) and found.told
    original = found.message
    assert (original.method, original.target, original.scheme) == ("PUT", "/a%2Fb?c", "https")
    # What a signature over Host covers is what the client sent.
    assert original.authority == original.get("host") == "app.example"
    assert original.get_all("host") == ["app.example"]


def test_one_source_is_believed_at_a_time() -> None:
    everything = received(*FORWARDED, *ALL, host="auth.internal")
    nginx, traefik, envoy = (asked(everything, STYLES[name], True, False) for name in ("nginx", "traefik", "envoy"))
    assert isinstance(nginx, Asked) and isinstance(traefik, Asked) and isinstance(envoy, Asked)
    assert (nginx.message.target, nginx.message.authority) == ("/orders?x=1", "auth.internal")
    assert (traefik.message.target, traefik.message.authority) == ("/a%2Fb?c", "app.example")
    assert (envoy.message.method, envoy.message.target, envoy.told) == ("GET", OWN, False)


@pytest.mark.parametrize(("proto", "scheme"), [("http", "http"), ("wss", "https"), ("ws", "http")])
def test_traefiks_words_for_websockets(proto: str, scheme: str) -> None:
    found = asked(received(FORWARDED[3], ("X-Forwarded-Proto", proto)), STYLES["traefik"], True, False)
    assert isinstance(found, Asked) and found.message.scheme == scheme


@pytest.mark.parametrize(
    "headers",
    [
        [*FORWARDED, ("X-Forwarded-Host", "other.example")],
        [*FORWARDED, ("X-Forwarded-Uri", "/other")],
        [*FORWARDED[:3], ("X-Forwarded-Uri", "http://other.example/a")],
        [*FORWARDED[:3], ("X-Forwarded-Uri", "/a b")],
        [*FORWARDED[:1], ("X-Forwarded-Proto", "https,http"), FORWARDED[3]],
    ],
)
def test_forwarded_headers_that_can_be_read_in_two_ways(headers: list[tuple[str, str]]) -> None:
    assert isinstance(asked(received(*headers), STYLES["traefik"], True, False), Rejected)


@pytest.mark.parametrize(
    ("target", "original"),
    [
        (OWN + "/", "/"),
        (OWN + "/a%2Fb?c=d", "/a%2Fb?c=d"),
        (OWN + "//a", "//a"),
        (OWN + "/a?", "/a?"),
        (OWN + OWN, OWN),
        (OWN, None),
        (OWN + "?a", None),
        (OWN + "x/a", None),
        ("/a" + OWN + "/a", None),
    ],
)
def test_envoy_tells_by_the_path(target: str, original: str | None) -> None:
    message = Message("DELETE", target, [("Host", "app.example"), *ALL])
    found = asked(message, STYLES["envoy"], True, False)
    assert isinstance(found, Asked)
    assert (found.told, found.message.target) == (original is not None, original or target)
    assert (found.message.method, found.message.authority) == ("DELETE", "app.example")
    # Nobody else, and under no other setting.
    for names, speaks in ((STYLES["envoy"], False), (STYLES["nginx"], True), (STYLES["traefik"], True)):
        other = asked(Message("DELETE", target, [("Host", "app.example")]), names, speaks, False)
        assert isinstance(other, Asked) and other.message.target == target and not other.told


def test_a_fragment_or_a_control_character_in_envoys_path_is_refused() -> None:
    for tail in ("/a#b", "/a\x01", "/a b"):
        assert isinstance(asked(Message("GET", OWN + tail, []), STYLES["envoy"], True, False), Rejected)


def test_every_refusal_is_401_or_403() -> None:
    seen = set()
    placeholders = {name for row in TABLE.values() for _, name, _, _ in Formatter().parse(row.text) if name}
    for dialect, plugin, reason in TABLE:
        rejected = Rejected(
            reason or Reason.MISSING,
            plugin=plugin,
            dialect=dialect,
            facts=dict.fromkeys(placeholders, "a"),
            challenge='hmac realm="hmac"',
        )
        status, body, headers = refusal(rejected, "id")
        if dialect != HMACPROXY:  # the original challenges nobody
            assert (status == 401) == ("www-authenticate" in dict(headers)), rejected
        assert not {"connection", "upgrade"} & dict(headers).keys()
        assert body.endswith(b"\n")
        seen.add(status)
    assert seen == {401, 403}


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["X-Original-Method", "X-Original-URI", "X-Original-Proto", "X-Real-IP"]),
            st.text(st.characters(max_codepoint=255)) | st.sampled_from([value for _, value in ALL]),
        )
    ),
    st.booleans(),
)
def test_whatever_is_told_is_understood_in_one_way_or_refused(headers: list[tuple[str, str]], real_ip: bool) -> None:
    found = told(*headers, real_ip=real_ip)
    if isinstance(found, Rejected):
        assert refusal(found).status == 403
        return
    target = found.message.target
    assert target.startswith("/")
    assert not any(character <= " " or character in "#\x7f" for character in target)
    assert found.message.authority == "shop.example:8443"
