"""One line in the log where a server does not keep the request target as it was sent.

Called by `adapters.heads` for each message whose target was rebuilt. Imports Django only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from django.core import mail

logger: Final = logging.getLogger("hmac_gateway.verify")
#: wsgiref, on which runserver is built: nobody serves the world with it.
_DEVELOPMENT: Final = "WSGIServer/"
_told = False


def tell_once(meta: Mapping[str, Any]) -> None:
    """Say what a rebuilt target means, once in a process; not under runserver and in test runs, where it is known."""
    global _told
    server = str(meta.get("SERVER_SOFTWARE") or "")
    # Django's test runner and pytest-django set up an outbox.
    if _told or server.startswith(_DEVELOPMENT) or hasattr(mail, "outbox"):
        return
    _told = True
    logger.warning(
        "%s does not keep the request target as it was sent: it is rebuilt from the decoded path, and signatures of a "
        "target that was quoted in another way (%%2F, %%7E, lower-case hex) are refused. Serve the site by ASGI, or by "
        "a WSGI server that sets RAW_URI (gunicorn) or REQUEST_URI (uWSGI, mod_wsgi, waitress).",
        server or "this server",
    )
