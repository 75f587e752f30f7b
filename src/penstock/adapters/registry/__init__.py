"""Images: artifacts pushed to an OCI registry (distribution 1.1), as they are.

Found as ``penstock.images: registry``. `driver` decides what is to be pushed, `asking` speaks to the registry
and logs in, `login` reads challenges and the file with passwords, `place` says what things are called there,
`stored` reads the artifact store, and `failures` says which word a bad answer is.
"""

from penstock.adapters.registry.driver import Registry

__all__ = ["Registry"]
