"""The example's settings with a few more protected addresses."""

import os

from utility.settings import *  # noqa: F403
from utility.settings import DATABASES, MIDDLEWARE, POLICY
from utility.settings import HMAC_GATEWAY as GIVEN

ROOT_URLCONF = "more_urls"
if "ATOMIC_REQUESTS" in os.environ:
    DATABASES["default"]["ATOMIC_REQUESTS"] = True
    # Without it nobody looks for changes before the transaction begins.
    MIDDLEWARE.remove("hmac_gateway.middleware.HmacGatewayMiddleware")
HMAC_GATEWAY = GIVEN | {
    "PROTECT": [
        *GIVEN["PROTECT"],
        {"path": r"^/seen/", "config": POLICY},
        {"path": r"^/body/", "config": POLICY | {"validate_request_body": True}},
        {"path": r"^/basic/", "plugin": "basic-auth"},
        {"path": r"^/guest/", "config": POLICY | {"anonymous_consumer": "guest"}},
    ]
}
