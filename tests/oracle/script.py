"""Run by `oracle.Oracle` with the library's own Python: one question with JSON on standard input, one answer.

It must not import Penstock: what it says is somebody else's opinion.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import aics_tlog as tlog
from aics_tlog.cosign import sign_cosignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def trees(leaves: list[str], roots: list[str], inclusions: list[Any], consistencies: list[Any]) -> list[str]:
    """What is wrong with our roots (of every size from 0) and proofs."""
    data = [raw(leaf) for leaf in leaves]
    tree = tlog.MerkleTree(data)
    wrong = [f"root {size}" for size, root in enumerate(roots) if tree.root(size) != raw(root)]
    for index, size, proof in inclusions:
        steps = [raw(step) for step in proof]
        leaf = tlog.leaf_hash(data[index])
        if not tlog.verify_inclusion(leaf, index, size, steps, raw(roots[size])):
            wrong.append(f"inclusion of {index} in {size}")
        if steps != tree.inclusion_proof(index, size):
            wrong.append(f"another inclusion proof of {index} in {size}")
    for old, new, proof in consistencies:
        steps = [raw(step) for step in proof]
        if not tlog.verify_consistency(old, new, raw(roots[old]), raw(roots[new]), steps):
            wrong.append(f"consistency of {old} with {new}")
        if steps != tree.consistency_proof(old, new):
            wrong.append(f"another consistency proof of {old} with {new}")
    return wrong


def tiles(resources: dict[str, str], roots: list[str], audited: list[int]) -> list[str]:
    """What is wrong with our tiles: they must give every root, and hold the entries of the audited sizes."""
    reader = tlog.MemoryTileReader({path: raw(data) for path, data in resources.items()})
    wrong = []
    for size, root in enumerate(roots[1:], 1):
        if tlog.tree_root_from_tiles(reader, size) != raw(root):
            wrong.append(f"root {size}")
        tlog.VerifiedTileReader(reader, size, raw(root)).check_root()
    for size in audited:
        tlog.audit_tiles(reader, size, raw(roots[size]))
    return wrong


def paths(size: int) -> list[str]:
    """Every resource of a tree of this size."""
    return sorted(tlog.tiles.materialise_tiles([b"%d" % index for index in range(size)]))


def note(text: str, log: str, witnesses: list[str], quorum: int) -> dict[str, Any]:
    """Whether a checkpoint is the log's, and who cosigned it; keys as verifier keys."""
    keys = [tlog.parse_vkey(key) for key in witnesses]
    found = tlog.verify_checkpoint(tlog.parse_note(text), tlog.parse_vkey(log), keys, quorum)
    head, _ = tlog.checkpoint.checkpoint_from_note(text)
    formatted = [tlog.format_vkey(tlog.parse_vkey(key)) for key in (log, *witnesses)]
    return {"log": found.log_ok, "ok": found.ok, "size": head.size, "error": found.error, "keys": formatted}


def cosign(text: str, name: str, seed: str, time: int) -> dict[str, str]:
    """A cosignature under a checkpoint, made by the library."""
    key = Ed25519PrivateKey.from_private_bytes(raw(seed))
    head, _ = tlog.checkpoint.checkpoint_from_note(text)
    _, line = sign_cosignature(key, name, time, head.origin, head.size, head.root)
    blob = base64.b64encode(line.key_id + line.signature).decode()
    public = tlog.format_vkey(tlog.cosignature_vkey(name, key.public_key()))
    return {"line": f"— {line.name} {blob}\n", "key": public}


def raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


QUESTIONS = {"trees": trees, "tiles": tiles, "paths": paths, "note": note, "cosign": cosign}

if __name__ == "__main__":
    answer = QUESTIONS[sys.argv[1]](**json.load(sys.stdin))
    json.dump(answer, sys.stdout)
