"""The example's addresses, and views that say what they saw."""

import hashlib

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import JsonResponse
from django.urls import path, re_path
from rest_framework.response import Response
from rest_framework.views import APIView
from utility.urls import urlpatterns as given

from hmac_gateway.decorators import hmac_required
from hmac_gateway.drf import HasConsumer, HmacAuthentication


@login_not_required
def seen(request):
    body = request.read()
    consumer = request.hmac.consumer
    return JsonResponse(
        {
            "consumer": consumer.username if consumer else None,
            "path": request.path,
            "a": request.GET.get("x"),
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
    )


@hmac_required(config=settings.POLICY | {"replay_protection": True})
def failing(request):
    raise RuntimeError("what this view has written is rolled back")


class Api(APIView):
    authentication_classes = [HmacAuthentication]
    permission_classes = [HasConsumer]

    def get(self, request):
        return Response({"consumer": request.user.username})


urlpatterns = [
    *given,
    path("decorated/", hmac_required(config=settings.POLICY)(seen)),
    path("drf/", Api.as_view()),
    path("failing/", failing),
    re_path(r"^(?:seen|body|basic|guest)/", seen),
]
