"""Counts queries on protected views, then asks until it is refused: prints counts, then the time of the refusal."""

import json
import sys
import time

import django
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

django.setup()

from hmac_gateway.client import sign_headers  # noqa: E402


def ask(key_id, where="/seen/x"):
    headers = sign_headers("GET", f"http://testserver{where}", key_id=key_id, secret="my-hmac-secret")
    return Client().get(where, headers=headers).status_code


def queries(where):
    with CaptureQueriesContext(connection) as captured:
        status = ask("client-1", where)
    assert status == 200, (where, status)
    return [query["sql"] for query in captured]


for where in sys.argv[1:]:
    ask("client-1", where)
ask("client-2")
found = {}
for where in sys.argv[1:]:
    time.sleep(0.3)
    found[where] = [queries(where), queries(where), queries(where)]
print(json.dumps(found), flush=True)
deadline = time.time() + 20
while (status := ask("client-2")) == 200 and time.time() < deadline:
    time.sleep(0.01)
print(json.dumps([status, time.time()]), flush=True)
