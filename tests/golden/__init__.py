"""Journals that earlier releases wrote, and the test that this release goes on with every one of them."""
