"""What survives the driver's process: plans and ports by route name, and the secret of the preview tokens.

Called by the driver, which asks Envoy itself for what it does. One file, replaced as a whole.
"""

from __future__ import annotations

import functools
import json
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core.codec import decode, encode
from penstock.core.traffic import TrafficPlan
from penstock.errors import Broken, Invalid


@dataclass
class _Kept:
    token: str = ""
    version: int = 0
    ports: dict[str, int] = field(default_factory=dict)
    plans: dict[str, TrafficPlan] = field(default_factory=dict)
    #: Plans that were on their way when the driver died: Envoy may follow them already.
    begun: dict[str, TrafficPlan] = field(default_factory=dict)


class State:
    def __init__(self, file: Path, first_port: int, kept: _Kept) -> None:
        self._file = file
        self._first_port = first_port
        self._kept = kept

    @classmethod
    def of(cls, folder: Path, first_port: int) -> State:
        """That of *folder*; `Broken` if it cannot be read."""
        file = folder / "state.json"
        if file.exists():
            try:
                return cls(file, first_port, decode(_Kept, json.loads(file.read_text()), file.name))
            except (ValueError, Invalid) as error:
                raise Broken(f"not what was written there: {error}", where=str(file)) from error
        state = cls(file, first_port, _Kept(token=secrets.token_urlsafe(24)))
        state._save()
        return state

    @property
    def token(self) -> str:
        return self._kept.token

    @property
    def plans(self) -> dict[str, TrafficPlan]:
        return self._kept.plans

    def keep(self, plans: dict[str, TrafficPlan]) -> None:
        self._kept.plans = plans
        begun = self._kept.begun.items()
        self._kept.begun = {name: plan for name, plan in begun if plans.get(name) != plan}
        self._save()

    def begin(self, name: str, plan: TrafficPlan) -> None:
        """Note a plan before Envoy is told of it; kept with the next version."""
        self._kept.begun[name] = plan

    def known(self, name: str) -> tuple[TrafficPlan, ...]:
        """What Envoy may have been told last of a service: the plan that is kept, and one that was begun."""
        return tuple(plans[name] for plans in (self._kept.plans, self._kept.begun) if name in plans)

    def next(self) -> str:
        """A version of configuration that there has not been yet."""
        self._kept.version += 1
        self._save()
        return f"v{self._kept.version}"

    def known_port(self, name: str) -> int | None:
        return self._kept.ports.get(name)

    def port(self, name: str) -> int:
        """The port of a service: chosen when it is first needed, and its own from then on."""
        ports = self._kept.ports
        if name not in ports:
            taken = set(ports.values())
            free = (port for port in range(self._first_port, 65536) if port not in taken and bindable(port))
            ports[name] = next(free)
            self._save()
        return ports[name]

    def _save(self) -> None:
        rest = {name: value for name, value in vars(self._kept).items() if name not in ("plans", "begun")}
        text = json.dumps(rest).removesuffix("}")
        text += f', "plans": {_listed(self._kept.plans)}, "begun": {_listed(self._kept.begun)}}}'
        temporary = self._file.with_name(f".{self._file.name}.new")
        temporary.write_text(text)
        temporary.chmod(0o600)
        temporary.replace(self._file)


def _listed(plans: dict[str, TrafficPlan]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {_encoded(plan)}" for name, plan in plans.items()) + "}"


@functools.lru_cache(maxsize=4096)
def _encoded(plan: TrafficPlan) -> str:
    """Most plans are the same as last time."""
    return json.dumps(encode(plan))


def bindable(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there, and somebody could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
