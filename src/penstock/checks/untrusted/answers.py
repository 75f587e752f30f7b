"""Judges answers by the document: is the status documented, and the content type, does the body fit?

Called by `__main__`. Pure. A server error is never as it should be, whatever the document says.
"""

from __future__ import annotations

import base64

from penstock.checks.untrusted.document import Document, Operation, escaped
from penstock.checks.untrusted.exchange import Answered
from penstock.checks.untrusted.schemas import Schemas
from penstock.core.codec import Json
from penstock.core.outside import clean, read_json
from penstock.errors import Invalid

MAX_BODY = 1024 * 1024
MAX_DEPTH = 100


class Judge:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._schemas = Schemas(document)
        self._operations = {operation.name: operation for operation in document.operations()}

    def problem(self, answer: Answered) -> str:
        """What is wrong with an answer, in words; "" if nothing is."""
        if answer.status >= 500:
            return f"answered {answer.status}"
        operation = self._operations.get(answer.operation)
        if operation is None or answer.expected == "no-error":
            return ""
        status = documented(operation.responses, answer.status)
        if status is None:
            known = ", ".join(sorted(operation.responses)) or "none"
            hint = "; give its parameters an example" if answer.status == 404 else ""
            return (
                f"answered {answer.status}, which is not documented (documented: {clean(known, 100)}{hint})"
            )
        return self._body(operation, status, answer)

    def _body(self, operation: Operation, status: str, answer: Answered) -> str:
        given = operation.responses[status]
        response = self._document.resolved(given, f"{operation.pointer}/responses/{status}")
        content = response.value.get("content")
        if answer.method == "HEAD" or answer.status in (204, 304) or not isinstance(content, dict):
            return ""
        kind = answer.content_type.partition(";")[0].strip().lower()
        media = fitting(content, kind)
        if media is None:
            known = ", ".join(sorted(content)) or "none"
            return (
                f"answered {answer.status} with {clean(kind, 60) or 'no content type'}; documented: {known}"
            )
        described = content[media]
        if not is_json(kind) or not isinstance(described, dict) or "schema" not in described:
            return ""
        if not answer.whole:
            return f"answered {answer.status} with more than {MAX_BODY} bytes: too much to check"
        try:
            value = read_json(base64.b64decode(answer.body), "the body", limit=MAX_BODY, depth=MAX_DEPTH)
        except Invalid as error:
            return f"answered {answer.status} with {kind} that cannot be read: {clean(error.what, 120)}"
        found = self._schemas.problem(f"{response.pointer}/content/{escaped(media)}/schema", value)
        return f"answered {answer.status} with a body that does not fit: {clean(found, 200)}" if found else ""


def documented(responses: dict[str, Json], status: int) -> str | None:
    """The key under which a status is documented; None if it is not."""
    for key in (str(status), f"{status // 100}XX", f"{status // 100}xx", "default"):
        if key in responses:
            return key
    return None


def fitting(content: dict[str, Json], kind: str) -> str | None:
    """The documented media type that an answer's has; ranges after names."""
    plain = {name.partition(";")[0].strip().lower(): name for name in reversed(content)}
    for wanted in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if wanted in plain:
            return plain[wanted]
    return None


def is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")
