"""One signed address."""

from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView


class Orders(APIView):
    """Says who asked. The signature must cover method, path and query."""

    hmac_policy = {"config": {"signed_headers": ["@request-target", "date"], "allowed_algorithms": ["hmac-sha256"]}}

    def get(self, request):
        return Response({"for": request.user.username, "key": request.auth.identifier})


urlpatterns = [path("orders/", Orders.as_view())]
