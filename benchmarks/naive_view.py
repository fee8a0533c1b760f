"""What the gateway is compared with: a plain Django view that forwards with one requests.Session.

Run by `benchmarks/gateway.py` as `gunicorn --worker-class gthread --threads 16 benchmarks.naive_view:application`.
No signature is checked here: everything it does is forwarding.
"""

import os

import django
import requests
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from requests.adapters import HTTPAdapter

settings.configure(
    SECRET_KEY="benchmark", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], DATABASES={}, USE_TZ=True
)
django.setup()

UPSTREAM = os.environ["UPSTREAM"]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=32))


def forward(request: HttpRequest) -> HttpResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    answer = session.request(
        request.method or "GET",
        UPSTREAM + request.get_full_path(),
        headers=headers,
        data=request.body,
        allow_redirects=False,
        timeout=60,
    )
    response = HttpResponse(answer.content, status=answer.status_code)
    for name, value in answer.headers.items():
        if name.lower() not in HOP_BY_HOP:
            response[name] = value
    return response


urlpatterns = [re_path("", forward)]
application = WSGIHandler()
