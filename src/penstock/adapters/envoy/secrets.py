"""The certificates that Envoy shows: one file for each identity, replaced whole by renaming (SDS by file).

Called by `peers`, which says which are in use. A file holds certificate and key together, so that Envoy never
sees one without the other; its version tells when and by whom it was made, for whoever comes next.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from penstock.adapters.envoy.config import Json
from penstock.core.mesh import Issued, Validity
from penstock.errors import Invalid, Unavailable
from penstock.ports import Issuer

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Secrets:
    def __init__(self, folder: Path, issuer: Issuer | None) -> None:
        self._folder = folder
        self._issuer = issuer

    def file(self, identity: str) -> Path:
        return self._folder / f"sds-{quote(identity.removeprefix('spiffe://'), safe='')}.json"

    def ensure(self, identities: Collection[str]) -> None:
        """Issue what is not there, or has lived half of its life."""
        for identity in sorted(identities):
            kept = _version(self.file(identity))
            if kept is None or kept[1].due(time.time()):
                self._put(identity, self._able().issue(identity))

    def renew(self, identities: Collection[str]) -> None:
        """The same, and issue anew what was signed by an authority that was; say so if that cannot be."""
        self.ensure(identities)
        by = self._able().by if identities else ""
        for identity in sorted(identities):
            if (kept := _version(self.file(identity))) is not None and kept[0] != by:
                self._put(identity, self._able().issue(identity))

    def keep_only(self, identities: Collection[str]) -> None:
        """Forget keys that nobody shows any more."""
        wanted = {self.file(identity) for identity in identities}
        for path in set(self._folder.glob("sds-*.json")) - wanted:
            path.unlink(missing_ok=True)

    def _able(self) -> Issuer:
        if self._issuer is None:
            raise Invalid("nothing here issues certificates, so no call may leave this machine")
        return self._issuer

    def _put(self, identity: str, issued: Issued) -> None:
        path = self.file(identity)
        document = {"version_info": _told(issued), "resources": [_secret(identity, issued)]}
        temporary = path.with_name(f".{path.name}.new")
        try:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(document))
            temporary.replace(path)
        except OSError as error:
            raise Unavailable(
                f"a certificate cannot be kept: {error.strerror}",
                where=str(path),
                next_move="free some space",
            ) from error


def _secret(identity: str, issued: Issued) -> Json:
    pair = {
        "certificate_chain": {"inline_string": issued.chain},
        "private_key": {"inline_string": issued.key},
    }
    return {"@type": SECRET, "name": identity, "tls_certificate": pair}


def _told(issued: Issued) -> str:
    return f"{issued.by} {issued.validity.made} {issued.validity.until}"


def _version(path: Path) -> tuple[str, Validity] | None:
    """By whom and when what is in the file was issued; None if it is no such file."""
    try:
        by, made, until = json.loads(path.read_bytes())["version_info"].split(" ")
        return by, Validity(float(made), float(until))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
