"""Tests in production: against the dark release, through the proxy, before any user sees it."""

import json
import os
import urllib.request

BASE = os.environ["PENSTOCK_BASE_URL"]
HEADERS = json.loads(os.environ["PENSTOCK_PREVIEW_HEADERS"])


def get(path):
    request = urllib.request.Request(BASE + path, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


def test_the_items_are_there():
    assert len(get("/items")) >= 3


def test_one_item_has_a_price():
    assert "." in get("/items/1")["price"]
