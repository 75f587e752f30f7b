"""Whether a port that somebody asks for can be had, and who has it if not. Called by `up`."""

from __future__ import annotations

import contextlib
import socket

import psutil

from penstock.errors import Conflict, Invalid


def demand(port: int, option: str) -> None:
    """`Invalid` if it is no port, `Conflict` if somebody else listens on it here."""
    if not 0 < port < 65536:
        raise Invalid(f"{port} is no port: from 1 to 65535", where=option)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            who = _holder(port) or (error.strerror or "").lower()
            raise Conflict(
                f"port {port} is taken ({who})",
                where=option,
                next_move=f"penstock up {option} <another one>, or end what listens there",
            ) from error


def _holder(port: int) -> str:
    """``pid 4711, python3``; "" if we may not know."""
    with contextlib.suppress(psutil.Error, OSError):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr[1:] == (port,) and found.pid:
                return f"pid {found.pid}, {psutil.Process(found.pid).name()}"
    return ""
