"""The page, from the catalog's items."""

from __future__ import annotations

from html import escape


def page(items: list[dict[str, str]]) -> str:
    rows = "".join(f"<tr><td>{escape(item['name'])}<td>{escape(item['price'])}" for item in items)
    return f"<!doctype html><title>Storefront</title><table>{rows or '<tr><td>sold out'}</table>"
