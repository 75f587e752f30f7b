"""Tests in production: the dark storefront, with the catalog that is live behind it."""

import json
import os
import urllib.request

BASE = os.environ["PENSTOCK_BASE_URL"]
HEADERS = json.loads(os.environ["PENSTOCK_PREVIEW_HEADERS"])


def test_the_page_shows_what_the_catalog_has():
    request = urllib.request.Request(BASE + "/", headers=HEADERS)
    with urllib.request.urlopen(request, timeout=5) as response:
        assert "Turbine" in response.read().decode()
