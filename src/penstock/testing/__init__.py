"""What tests of your own may use: stand-ins for outside systems that behave as those do, over real
connections.

It is part of the product, and no part of the product uses it. Must not know Penstock: each stands in for
somebody else's system, and is written from how that behaves.
"""
