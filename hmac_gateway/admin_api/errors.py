"""What an admin API refuses, as a value that knows its answer, and how other failures become one.

Raised by every file of this package, turned into a response by the view.
"""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError


class ApiError(Exception):
    """A refusal: an HTTP status and its body (an object, or a plain text)."""

    def __init__(self, status: int, body: dict[str, Any] | str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def refuse(text: str, status: int = 400) -> ApiError:
    """The usual refusal: `{"error_msg": text}`."""
    return ApiError(status, {"error_msg": text})


def not_found() -> ApiError:
    """What APISIX says of a key that is not there."""
    return ApiError(404, {"message": "Key not found"})


#: What APISIX says before a schema's error.
INVALID: Final = "invalid configuration: "


def invalid(text: str) -> ApiError:
    """A configuration that breaks a rule, with APISIX's prefix."""
    return refuse(INVALID + text)


def from_model(error: ValidationError) -> ApiError:
    """A model's refusal. Its words name the field already, except where Django's own validators speak."""
    if not hasattr(error, "error_dict"):
        return invalid(" ".join(error.messages))
    texts = []
    for field, messages in error.message_dict.items():
        for message in messages:
            named = field == NON_FIELD_ERRORS or f"`{field}`" in message
            texts.append(message if named else f"`{field}`: {message}")
    return invalid(" ".join(texts))
