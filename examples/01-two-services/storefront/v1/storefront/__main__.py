"""``python3 -m storefront``"""

import http.client
import os

from storefront.catalog import Catalog
from storefront.page import page
from storefront.web import Answer, as_json, serve

CATALOG = Catalog(os.environ.get("CATALOG_URL", "http://127.0.0.1:8000"))


def answer(path: str) -> Answer:
    if path == "/healthz":
        return as_json("ok")
    if path != "/":
        return 404, "text/plain", "no such page\n"
    try:
        return 200, "text/html", page(CATALOG.items())
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        return 502, "text/plain", f"{error}\n"


if __name__ == "__main__":
    serve(answer)
