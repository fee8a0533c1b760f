"""An API without a database: who may call stands in CREDENTIALS."""

import os

SECRET_KEY = "only-for-this-example-0123456789-abcdefghijklmnopqrstuvwxyz"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
INSTALLED_APPS = ["rest_framework", "hmac_gateway"]
ROOT_URLCONF = "orders_api.urls"
USE_TZ = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["hmac_gateway.drf.HmacAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["hmac_gateway.drf.HasConsumer"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # Without django.contrib.auth there is no anonymous user.
    "UNAUTHENTICATED_USER": None,
}

HMAC_GATEWAY = {
    # By key id. A secret belongs into the environment, not into a file of the project.
    "CREDENTIALS": {"shop-1": {"secret_key": os.environ["SHOP_SECRET"], "username": "shop"}},
}
