"""What one Envoy has to do with other machines, with its files and certificates.

Called by the driver at each step of a change, and several times a second. `mesh` renders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.adapters.envoy import mesh
from penstock.adapters.envoy.config import Json, Listening
from penstock.adapters.envoy.secrets import Secrets
from penstock.adapters.envoy.state import bindable
from penstock.core.traffic import Backend, Egress, TrafficPlan
from penstock.errors import Invalid
from penstock.ports import Issuer


class Peers:
    def __init__(self, folder: Path, issuer: Issuer | None) -> None:
        self._folder = folder
        self._log = folder / "access.log"
        self._secrets = Secrets(folder, issuer)

    def renew(self, plans: Iterable[TrafficPlan]) -> None:
        """Have a good certificate for whoever needs one."""
        self._secrets.renew(mesh.identities(plans))

    def prepare(self, plan: TrafficPlan, before: Sequence[TrafficPlan]) -> None:
        """What has to be there before Envoy is told of a plan. `Invalid` where it could not listen: it would
        refuse every listener of this machine from then on."""
        where = plan.export.listen if plan.export else ""
        if where and where not in {export.listen for _, export in mesh.exports(before)}:
            host, _, port = where.rpartition(":")
            if not bindable(int(port), host):
                what = f"cannot listen at {where}: somebody else does, or it is no address of this machine"
                raise Invalid(what, where=plan.service, next_move="choose another mesh.listen")
        self._secrets.ensure(mesh.identities([plan]))

    def forget(self, plans: Iterable[TrafficPlan]) -> None:
        """Remove the keys that none of *plans* needs."""
        self._secrets.keep_only(mesh.identities(plans))

    def clusters(self, plans: Iterable[TrafficPlan]) -> list[Json]:
        return mesh.clusters(plans, self._secrets.file)

    def listeners(self, plans: Iterable[TrafficPlan]) -> list[Json]:
        return mesh.listeners(plans, self._folder, self._secrets.file)

    def egress(self, plan: TrafficPlan, backend: Backend, egress: Egress, of: Listening) -> Json | None:
        """The listener of a caller whose callee is at a peer; None where it is not."""
        if egress.remote is None:
            return None
        return mesh.egress(mesh.Way(plan, backend, egress, egress.remote), of, self._log)
