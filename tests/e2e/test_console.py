"""Every page of the console, saved as a browser saves it: opened, one field changed, sent back with its inlines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.console import Console
from tests.support.served import Served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        served.setup("127.0.0.1:9", plugin={})
        served.put("/services/s", {"name": "s", "upstream": {"nodes": {"127.0.0.1:9": 1}}})
        served.put("/routes/of-service", {"uri": "/s", "service_id": "s", "plugins": {"hmac-auth": {}}})
        yield served


@pytest.mark.parametrize(
    ("page", "label"),
    [
        ("hmac_proxy/upstream/u", "hmac_proxy.Upstream"),
        ("hmac_proxy/service/s", "hmac_proxy.Service"),
        ("hmac_proxy/route/r", "hmac_proxy.Route"),
        ("hmac_consumers/consumer/{consumer}", "hmac_consumers.Consumer"),
    ],
)
def test_page_with_inlines_is_saved(served: Served, page: str, label: str) -> None:
    consumer = served.python(
        "from django.apps import apps; print(apps.get_model('hmac_consumers.Consumer').objects.get().pk)"
    ).strip()
    page = page.format(consumer=consumer)
    with Console(served) as console:
        console.submit(f"/admin/{page}/change/", {"desc": "changed on its page"})
        assert console.form(f"/admin/{page}/change/")["desc"] == "changed on its page"


def test_weight_is_changed_in_the_upstreams_own_form(served: Served) -> None:
    with Console(served) as console:
        fields = console.form("/admin/hmac_proxy/upstream/u/change/")
        assert fields["nodes-0-weight"] == "1"
        console.submit("/admin/hmac_proxy/upstream/u/change/", {"nodes-0-weight": "7"})
    (node,) = served.admin("GET", "/upstreams/u").json()["value"]["nodes"]
    assert (node["host"], node["port"], node["weight"]) == ("127.0.0.1", 9, 7)
