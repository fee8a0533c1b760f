"""The three steps of API7's guide "Configure HMAC Authentication", word for word."""

from __future__ import annotations

import json
import re
import shlex

from django.apps import apps
from django.test import Client

GUIDE = r"""
curl -k "https://localhost:7443/apisix/admin/services/hmac-auth-httpbin-service?gateway_group_id={group_id}" -X PUT \
-H "X-API-KEY: ${API_KEY}" \
-H "Content-Type: application/json" \
-d '{
"name": "hmac-auth-httpbin-service",
"upstream": {
"type": "roundrobin",
"scheme": "http",
"nodes": [
{
"host": "httpbin.org",
"port": 80,
"weight": 100
}
]
}
}'

curl -k "https://localhost:7443/apisix/admin/routes/hmac-auth-route?gateway_group_id={group_id}" -X PUT \
-H "X-API-KEY: ${API_KEY}" \
-H "Content-Type: application/json" \
-d '{
"name": "hmac-auth-route",
"paths": ["/anything/hmac-auth"],
"methods": ["GET"],
"service_id": "hmac-auth-httpbin-service",
"plugins": {
"hmac-auth": {
"clock_skew": 300,
"allowed_algorithms": ["hmac-sha256"]
}
}
}'

curl -k "https://localhost:7443/apisix/admin/consumers/hmac-auth-consumer?gateway_group_id={group_id}" -X PUT \
-H "X-API-KEY: ${API_KEY}" \
-H "Content-Type: application/json" \
-d '{
"username": "hmac-auth-consumer"
}'

curl -k "https://localhost:7443/apisix/admin/consumers/hmac-auth-consumer/credentials/hmac-auth-consumer-cred?gateway_group_id={group_id}" -X PUT \
-H "X-API-KEY: ${API_KEY}" \
-H "Content-Type: application/json" \
-d '{
"name": "hmac-auth-consumer-cred",
"plugins": {
"hmac-auth": {
"key_id": "client-1",
"secret_key": "my-hmac-secret"
}
}
}'
"""  # noqa: E501


def calls() -> list[tuple[str, str, dict[str, str], str]]:
    """Each curl line as (method, path with query, headers, body)."""
    found = []
    for text in re.split(r"^(?=curl )", GUIDE.strip(), flags=re.M):
        words = shlex.split(text.replace("\\\n", " "))
        if not words:
            continue
        url = next(word for word in words if word.startswith("https://"))
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        found.append(
            (
                words[words.index("-X") + 1],
                url.removeprefix("https://localhost:7443"),
                headers,
                words[words.index("-d") + 1],
            )
        )
    return found


def test_every_line_of_the_guide_works_as_printed(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    assert len(calls()) == 4
    for expected in (201, 200):
        for method, path, headers, body in calls():
            headers = {**headers, "X-API-KEY": "test-admin-key-0123456789abcdef"}
            media = headers.pop("Content-Type")
            response = client.generic(method, path, body, content_type=media, headers=headers)
            assert response.status_code == expected, response.content
            assert response["X-API-VERSION"] == "v3"
            assert response["Content-Type"] == "application/json"
            assert response.content.endswith(b"\n") and not response.cookies
            sent = json.loads(body)
            if "credentials" in path:
                sent["plugins"]["hmac-auth"]["secret_key"] = "********"
            value = response.json()["value"]
            assert {name: value[name] for name in sent} == sent
            assert response.json()["key"] == path.partition("?")[0].replace("/apisix/admin", "/apisix")

    route = apps.get_model("hmac_proxy.Route").objects.get(pk="hmac-auth-route")
    assert route.paths == ["/anything/hmac-auth"] and route.service_id == "hmac-auth-httpbin-service"
    assert route.labels == {"gateway_group_id": "{group_id}"}
    node = route.service.upstream.nodes.get()
    assert (node.host, node.port, node.weight) == ("httpbin.org", 80, 100)
    credential = apps.get_model("hmac_consumers.Credential").objects.get()
    assert (credential.public_id, credential.identifier) == ("hmac-auth-consumer-cred", "client-1")
    assert credential.get_secret() == "my-hmac-secret"
    assert route.plugins.get().config == {"clock_skew": 300, "allowed_algorithms": ["hmac-sha256"]}
