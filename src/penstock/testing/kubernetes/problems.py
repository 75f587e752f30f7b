"""What the API says when it says no: the Status object of its answers. Pure."""

from __future__ import annotations

from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Problem(Exception):
    """Raised by whatever handles a request; the server makes an answer of it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        details: dict[str, Any] | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or REASONS.get(status, "Unknown")
        self.details = details
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
        }
        details = {
            **(self.details or {}),
            **({"retryAfterSeconds": self.retry_after} if self.retry_after else {}),
        }
        return {**found, **({"details": details} if details else {})}


def not_found(plural: str, group: str, name: str) -> Problem:
    full = f"{plural}.{group}" if group else plural
    details = {"name": name, "kind": plural, **({"group": group} if group else {})}
    return Problem(404, f'{full} "{name}" not found', details=details)
