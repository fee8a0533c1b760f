"""Makes the standalone site's `.env`: keys that are made once and then stay. Standard library only.

Called by `manage.py` before Django reads its settings, for `hmac_demo` and `script/demo`.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

TEMPLATE = """\
# Made by hmac_demo. Keep it: without the encryption key the stored secrets cannot be read.
SECRET_KEY={secret_key}
HMAC_GATEWAY_ENCRYPTION_KEYS={encryption_key}
HMAC_GATEWAY_ADMIN_KEY={admin_key}
"""


def dotenv_path() -> Path:
    """Where the standalone settings look for `.env`: beside manage.py."""
    return Path(__file__).resolve().parent.parent / ".env"


def make_env(path: Path) -> bool:
    """Write `path` (mode 0600) with fresh keys unless it exists; True when it was written."""
    text = TEMPLATE.format(
        secret_key=secrets.token_urlsafe(48),
        encryption_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        admin_key=secrets.token_urlsafe(24),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True
