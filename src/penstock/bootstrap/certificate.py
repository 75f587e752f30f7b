"""The TLS certificate of the port at which a cluster's API server asks: from files that others renew.

Called by `serve`, if the settings name that port, and by ``up``, which checks what it is told. The API server
trusts what its webhook's configuration names; whoever renews the files need not start anything again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.bootstrap.home import AdmissionSettings
from penstock.errors import Invalid

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

#: How often the certificate is looked at. Whoever renews one does so days before it ends.
LOOK_SECONDS = 30.0


def chosen(known: AdmissionSettings | None, given: AdmissionSettings | None) -> AdmissionSettings | None:
    """What holds from now on; a *given* port of 0 is none. `Invalid` if its files are of no use."""
    if given is None or not given.port:
        return known if given is None else None
    files = (Path(name).expanduser().absolute() for name in (given.certificate, given.key))
    certificate, key = map(str, files)
    settings = replace(given, certificate=certificate, key=key)
    if not 0 < given.port < 65536:
        raise Invalid(f"there is no port {given.port}", where="--admission-port")
    if any(not name.strip("/:@") for name in given.also):
        raise Invalid("everything begins with nothing", where="--admission-also", next_move="name an image")
    Certificate.of(settings)
    return settings


@dataclass(frozen=True)
class Certificate:
    """A TLS server's *context*, with what is in the files."""

    files: tuple[Path, Path]
    context: ssl.SSLContext

    @classmethod
    def of(cls, settings: AdmissionSettings) -> Certificate:
        """`Invalid` if there is none in the files, or the key is another's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        found = cls((Path(settings.certificate), Path(settings.key)), context)
        found.read()
        return found

    def shown_by(self, config: uvicorn.Config) -> uvicorn.Config:
        """The same, for a server that speaks TLS."""
        config.load()
        config.ssl = self.context
        return config

    def read(self) -> None:
        """Show what is in the files now to whoever connects from now on."""
        for path in self.files:
            if not path.is_file():
                raise Invalid("there is no such file", where=str(path), next_move="docs/guides/admission.md")
        try:
            self.context.load_cert_chain(*self.files)
        except (ssl.SSLError, OSError) as error:
            what = f"not a certificate and its key: {error}"
            raise Invalid(what, where=str(self.files[0]), next_move="PEM, of both") from error

    async def follow(self, seconds: float = LOOK_SECONDS) -> None:
        """Read again what is renewed, until cancelled. What cannot be used is told, and the old one stays."""
        seen = self._state()
        while True:
            await asyncio.sleep(seconds)
            if (now := self._state()) != seen:
                seen = now
                try:
                    self.read()
                    log.info("the certificate of the admission port was renewed")
                except Invalid as error:
                    log.error("the certificate of the admission port stays as it was: %s", error)

    def _state(self) -> tuple[object, ...]:
        """What tells one pair of files from another: a mounted Secret changes by a link."""
        stats = [path.stat() for path in self.files if path.exists()]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)
