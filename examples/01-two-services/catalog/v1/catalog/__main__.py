"""``python3 -m catalog``"""

import os

from catalog.items import find, listed
from catalog.web import Answer, as_json, serve

CURRENCY = os.environ.get("CURRENCY", "EUR")


def answer(path: str) -> Answer:
    if path in ("/", "/items"):
        return as_json(listed(CURRENCY))
    if path == "/healthz":
        return as_json("ok")
    number = path.removeprefix("/items/")
    item = find(int(number), CURRENCY) if number.isdigit() else None
    return as_json(item) if item else as_json({"error": "no such item"}, 404)


if __name__ == "__main__":
    serve(answer)
