"""The example's settings with a few more protected addresses."""

from utility.settings import *  # noqa: F403
from utility.settings import HMAC_GATEWAY as GIVEN
from utility.settings import POLICY

ROOT_URLCONF = "more_urls"
HMAC_GATEWAY = GIVEN | {
    "PROTECT": [
        *GIVEN["PROTECT"],
        {"path": r"^/seen/", "config": POLICY},
        {"path": r"^/body/", "config": POLICY | {"validate_request_body": True}},
        {"path": r"^/basic/", "plugin": "basic-auth"},
        {"path": r"^/guest/", "config": POLICY | {"anonymous_consumer": "guest"}},
    ]
}
