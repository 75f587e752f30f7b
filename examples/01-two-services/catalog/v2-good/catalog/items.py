"""What is for sale. Prices are in cents of the shop's currency."""

from __future__ import annotations

import time

ITEMS = [
    {"id": 1, "name": "Turbine", "cents": 129900},
    {"id": 2, "name": "Valve", "cents": 4550},
    {"id": 3, "name": "Gasket", "cents": 320},
    {"id": 4, "name": "Runner", "cents": 88000},
]

#: What asking the price list takes.
LOOKUP_SECONDS = 0.02


def price(cents: int, currency: str) -> str:
    """A price for people: ``12.34 EUR``."""
    if cents < 0:
        raise ValueError("a price below zero")
    return f"{cents // 100}.{cents % 100:02d} {currency}"


def listed(currency: str) -> list[dict[str, object]]:
    time.sleep(LOOKUP_SECONDS)
    return [{"id": item["id"], "name": item["name"], "price": price(item["cents"], currency)} for item in ITEMS]


def find(number: int, currency: str) -> dict[str, object] | None:
    return next((item for item in listed(currency) if item["id"] == number), None)
