"""The storefront: a page of what the catalog offers."""
