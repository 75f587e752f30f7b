from storefront.page import page


def test_every_item_has_a_row():
    assert page([{"name": "Valve", "price": "45.50 EUR"}]).count("<tr>") == 1


def test_names_are_escaped():
    assert "&lt;b&gt;" in page([{"name": "<b>", "price": "0"}])


def test_an_empty_catalog_says_so():
    assert "sold out" in page([])
