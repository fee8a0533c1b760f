"""What partners call with Django REST framework."""

from django.conf import settings
from rest_framework.authentication import SessionAuthentication
from rest_framework.generics import CreateAPIView, ListAPIView
from rest_framework.permissions import IsAdminUser
from rest_framework.serializers import ModelSerializer, SlugRelatedField

from hmac_gateway.drf import ConsumerThrottle, HasConsumer, HmacAuthentication

from .models import Household, Reading


class ReadingSerializer(ModelSerializer):
    meter = SlugRelatedField("meter", source="household", queryset=Household.objects.all())

    class Meta:
        model = Reading
        fields = ["meter", "day", "kwh"]


class Readings(ListAPIView):
    """Partners sign; staff looks at the same address in a browser, logged in."""

    queryset = Reading.objects.select_related("household")
    serializer_class = ReadingSerializer
    authentication_classes = [HmacAuthentication, SessionAuthentication]
    permission_classes = [HasConsumer | IsAdminUser]
    throttle_classes = [ConsumerThrottle]
    hmac_policy = {"config": settings.POLICY}


class Import(CreateAPIView):
    """The signature covers the body, and no request is taken twice."""

    queryset = Reading.objects.all()
    serializer_class = ReadingSerializer
    authentication_classes = [HmacAuthentication]
    permission_classes = [HasConsumer]
    throttle_classes = [ConsumerThrottle]
    hmac_policy = {"config": settings.POLICY | {"validate_request_body": True, "replay_protection": True}}
