"""Settings of the test suite: the standalone site with keys that are only for tests."""

import os

os.environ["HMAC_GATEWAY_NO_DOTENV"] = "1"
os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 40)
os.environ.setdefault("HMAC_GATEWAY_ENCRYPTION_KEYS", "dGVzdC1rZXktdGVzdC1rZXktdGVzdC1rZXktdGVzdDE=")
os.environ.setdefault("HMAC_GATEWAY_ADMIN_KEY", "test-admin-key-0123456789abcdef")

from hmac_gateway.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
