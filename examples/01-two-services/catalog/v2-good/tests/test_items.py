import pytest

from catalog.items import find, listed, price


def test_prices_have_two_decimals():
    assert price(320, "EUR") == "3.20 EUR"


def test_prices_below_zero_are_refused():
    with pytest.raises(ValueError, match="below zero"):
        price(-1, "EUR")


def test_everything_is_listed_with_its_price():
    assert [item["price"] for item in listed("CHF")] == ["1299.00 CHF", "45.50 CHF", "3.20 CHF", "880.00 CHF"]


def test_an_item_is_found_by_number():
    assert find(2, "EUR")["name"] == "Valve"


def test_an_unknown_number_finds_nothing():
    assert find(99, "EUR") is None
