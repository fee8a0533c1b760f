"""A real nginx asks the command by `auth_request`: with our page's configuration, and with the original README's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.hmacproxied import Hmacproxy, sign
from tests.support.nginx import Nginx

from .conftest import Seen

pytestmark = pytest.mark.service

PAGE = (Path(__file__).parent.parent.parent / "docs" / "hmacproxy.md").read_text()
(SHOWN,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.M | re.S)
#: What the README has: the headers of the request, its length among them, and nothing of its body.
README = """\
location = /auth { internal; proxy_pass http://127.0.0.1:8081; proxy_set_header X-Original-URI $request_uri; }
location / { auth_request /auth; proxy_pass http://127.0.0.1:8000; }
"""


@pytest.mark.parametrize("text", [SHOWN, README], ids=["ours", "README"])
def test_nginx_lets_through_what_is_signed(answering: Hmacproxy, seen: Seen, text: str) -> None:
    for port, ours in (("8081", answering.port), ("8000", seen.port)):
        assert text.count(f"127.0.0.1:{port}") == 1
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
    with Nginx(f"server {{ listen 127.0.0.1:LISTEN; {text} }}") as nginx:

        def status(method: str, target: str, string: str, body: bytes | None = None, *more: tuple[str, str]) -> int:
            with nginx.client() as client:
                return client.ask(method, target, "nginx.test", [sign(string), *more], body).status

        before = len(seen.requests)
        assert status("GET", "/a%2Fb?c=%20", "GET\n/a/b?c=%20\n") == 200
        assert seen.requests[-1][0][0] == "GET /a%2Fb?c=%20 HTTP/1.0"
        assert status("GET", "/a", "GET\n/b\n") == 401
        # Whoever tells nginx of another request is not believed.
        assert status("GET", "/a", "GET\n/b\n", None, ("X-Original-URI", "/b")) == 401
        # Nobody waits for a body that nginx keeps to itself, and none is let through unchecked.
        assert status("POST", "/a", "POST\n/a\n", b"body") == 401
        assert status("POST", "/a", "GET\n/a\n", b"body") == 401
        if "X-Original-Method" in text:
            assert status("DELETE", "/a", "GET\n/a\n") == 401
        assert len(seen.requests) == before + 1
