"""How fast the output of a step is masked, kept, compressed and read again by range.

    benchmarks/logs.py [--json FILE]

Masking is measured alone, on lines without a secret and on lines that are full of them; the way to the disk
with what it costs in files. One process, one core, in writes of 64 KiB.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from penstock.adapters._output import Output
from penstock.core.masking import Masker
from penstock.core.steplog import KEPT
from penstock.engine.logs import finish, read

WRITE = 64 * 1024
MEGABYTES = 64
LINE = b"2026-11-23T22:15:38Z INFO request 12345 GET /items/7 answered 200 in 12.5 ms user=anna\n"


def writes(line: bytes) -> bytes:
    return (line * (WRITE // len(line) + 1))[:WRITE]


def rate(secrets: list[bytes], line: bytes) -> float:
    """Megabytes a second through one masker."""
    masker, data = Masker(secrets), writes(line)
    began = time.perf_counter()
    for _ in range(MEGABYTES * 1_000_000 // WRITE):
        masker.feed(data)
    return MEGABYTES / (time.perf_counter() - began)


def seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def masking() -> dict[str, float]:
    tokens = [base64.b64encode(os.urandom(24)) for _ in range(5)]
    body = base64.encodebytes(os.urandom(1200))
    key = b"-----BEGIN PRIVATE KEY-----\n" + body + b"-----END PRIVATE KEY-----\n"
    encoded = base64.b64encode(b"user:" + tokens[0])
    return {
        "mask, 1 token (MB/s)": rate(tokens[:1], LINE),
        "mask, 5 tokens (MB/s)": rate(tokens, LINE),
        "mask, a private key of 28 lines (MB/s)": rate([key], LINE),
        "mask, 1 token on every second line (MB/s)": rate(tokens[:1], LINE + b"key=" + tokens[0] + b"\n"),
        "mask, its base64 on every second line (MB/s)": rate(tokens[:1], LINE + b"auth=" + encoded + b"\n"),
        "mask, a secret that overlaps itself (MB/s)": rate([b"a" * 1000], b"a" * 60 + b"\n" + b"a" * 3000),
    }


def keeping() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "build.log"
        output = Output(log, [b"a-secret-value"])
        lines = [LINE.replace(b"anna", os.urandom(8).hex().encode()) for _ in range(20_000)]
        various = [b"".join(lines[at * 350 :])[:WRITE] for at in range(50)]

        def write() -> None:
            for number in range(1_000_000_000 // WRITE):
                output.write(various[number % 50])
            output.close()

        wrote = seconds(write)
        finishing = seconds(lambda: finish(log))
        starts = range(0, KEPT.head, KEPT.head // 50)
        reading = seconds(lambda: [read(log, at, WRITE) for at in starts]) / len(starts)
        size = log.with_name("build.log.gz").stat().st_size
    return {
        "write 1 GB, 1 token (MB/s)": 1000 / wrote,
        "compress what is kept of it (s)": finishing,
        "its size on the disk (MB)": size / 1e6,
        "read 64 KiB anywhere in it (ms)": reading * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the output of a step is masked and kept.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args()
    figures = {**masking(), **keeping()}
    for name, value in figures.items():
        print(f"{name:<48} {value:10.1f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
