"""What the gateway is compared with: a plain Django view that forwards with one requests.Session.

Run by `benchmarks/gateway.py` as `gunicorn --worker-class gthread --threads 16 benchmarks.naive_view:application`.
No signature is checked and no access log written: everything it does is forwarding, in a site with the middleware that
`startproject` gives every site, as such a view would stand in one.
"""

import os

import django
import requests
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt
from requests.adapters import HTTPAdapter

settings.configure(
    SECRET_KEY="benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={},
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)
django.setup()

UPSTREAM = os.environ["UPSTREAM"]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"}

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=32))


@csrf_exempt
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
