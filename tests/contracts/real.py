"""A real cluster, as ``make contract-kubernetes`` takes one: what a test needs of it besides our drivers.

Each test has a namespace of its own, which goes at its end, and asks pods through the API: from wherever that
is reached there need be no way to a pod, no DNS, and no gateway. Must not touch any other namespace.
"""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Any

import httpx

from penstock.adapters._kubernetes import Access
from penstock.errors import Invalid, Unavailable

OLDEST = (1, 31)
SECONDS = 30.0
#: To find what an interrupted run has left; and no pod gets in that asks for more than ours should.
LABELS = {"penstock.org/contract": "yes", "pod-security.kubernetes.io/enforce": "restricted"}


class RealCluster:
    """Open within its ``async with``. A *namespace* that is named is used, and stays."""

    def __init__(self, access: Access, namespace: str = "") -> None:
        self.namespace = namespace or f"penstock-contract-{secrets.token_hex(4)}"
        self._own = not namespace
        token = access.token()
        self._http = httpx.AsyncClient(
            base_url=access.server,
            verify=access.tls or False,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=SECONDS,
            trust_env=False,
        )

    async def __aenter__(self) -> RealCluster:
        try:
            await self._check_version()
            if self._own:
                await self._make_namespace()
            await self._until_pods_are_let_in()
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What goes with the namespace is not waited for: the next test has another one."""
        if self._own:
            await self._http.delete(f"/api/v1/namespaces/{self.namespace}")
        await self._http.aclose()

    async def ask(self, address: str, path: str) -> str:
        """The pod at HOST:PORT, by way of the API; `ConnectionError` if nobody answers there."""
        host, _, port = address.rpartition(":")
        pods = [
            pod["metadata"]["name"]
            for pod in await self.pods()
            if pod.get("status", {}).get("podIP") == host.strip("[]")
        ]
        if not pods:
            raise ConnectionError(f"no pod has the address {address}")
        try:
            answer = await self._http.get(f"{self._root}/pods/{pods[0]}:{port}/proxy{path}")
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error
        if answer.status_code != 200:
            raise ConnectionError(answer.text)
        return answer.text

    async def pods(self) -> list[dict[str, Any]]:
        """All in the namespace that have not ended."""
        listed = (await self._asked(f"{self._root}/pods"))["items"]
        return [pod for pod in listed if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]

    @property
    def _root(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    async def _asked(self, path: str) -> dict[str, Any]:
        answer = await self._http.get(path)
        if answer.status_code != 200:
            raise Unavailable(f"the API answered {answer.status_code}: {answer.text[:300]}", where=path)
        found: dict[str, Any] = answer.json()
        return found

    async def _check_version(self) -> None:
        found = await self._asked("/version")
        version = tuple(int(str(found[part]).rstrip("+")) for part in ("major", "minor"))
        if version < OLDEST:
            said = ".".join(map(str, version))
            raise Invalid(f"this cluster is Kubernetes {said}", next_move="take one of 1.31 or newer")

    async def _make_namespace(self) -> None:
        metadata = {"name": self.namespace, "labels": LABELS}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        answer = await self._http.post("/api/v1/namespaces", json=body)
        if answer.status_code == 403:
            raise Invalid(
                f"we may make no namespace: {answer.json().get('message')}",
                where="namespaces",
                next_move="export PENSTOCK_CONTRACT_NAMESPACE=NAME of one that is empty; it will stay",
            )
        answer.raise_for_status()

    async def _until_pods_are_let_in(self) -> None:
        """A namespace that is new has no account for pods for a moment."""
        async with asyncio.timeout(SECONDS):
            while (await self._http.get(f"{self._root}/serviceaccounts/default")).status_code != 200:
                await asyncio.sleep(0.1)
