"""The views of `benchmarks.embedded`."""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from hmac_gateway.drf import HmacAuthentication


def view(request: HttpRequest) -> HttpResponse:
    """The least a view can do."""
    return HttpResponse("ok")


class Api(APIView):
    """The least an APIView can do."""

    def get(self, request: Request) -> Response:
        """Answer."""
        return Response({"ok": True})


urlpatterns = [
    path("view/", view),
    path("protected/view/", view),
    path("api/", Api.as_view(authentication_classes=[])),
    path("api/signed/", Api.as_view(authentication_classes=[HmacAuthentication])),
]
