"""Checks an audit export of wardkey, or the proof of one entry, without wardkey: this page is enough.

    python check_audit.py export.jsonl          says what the file proves, or fails
    python check_audit.py proof.json

Slow and strict, and it keeps all leaf hashes in memory. Needs Python and the package ``cryptography``, of
which Ed25519 alone is used. Trees are RFC 6962 §2.1 written out. Compare the keys that it names with those
you know.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry)


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def root(begin: int, end: int, known: dict[tuple[int, int], bytes]) -> bytes:
    """Return the hash over the leaves from ``begin`` to before ``end``: known, or of its two halves."""
    if (begin, end) in known:
        return known[begin, end]
    if begin + 1 >= end:
        raise ValueError(f"nothing is known of the leaf at position {begin}")
    half = 1
    while 2 * half < end - begin:
        half *= 2
    return node(root(begin, begin + half, known), root(begin + half, end, known))


def pieces(begin: int, end: int) -> list[tuple[int, int]]:
    """Return the largest perfect subtrees that make up a range of leaves."""
    pieces = []
    while begin < end:
        size = 1
        while begin % (2 * size) == 0 and begin + 2 * size <= end:
            size *= 2
        pieces.append((begin, begin + size))
        begin += size
    return pieces


def check_signature(line: dict[str, object], keys: list[bytes]) -> None:
    checkpoint = line["checkpoint"]
    if not isinstance(checkpoint, dict) or checkpoint["format"] != 1:
        raise ValueError("not a checkpoint of format 1")
    key = next(key for key in keys if sha256(key).hex() == checkpoint["key"])
    signature = base64.b64decode(str(line["signature"]))
    message = b"wardkey/1 audit checkpoint\n" + canonical(checkpoint)
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def check_export(data: bytes) -> str:
    """Return what is proven. Raises whatever comes to hand where it is not."""
    if not data.endswith(b"\n"):
        raise ValueError("the file was cut off")
    lines = data[:-1].split(b"\n")
    documents = [json.loads(line) for line in lines]
    if [canonical(document) for document in documents] != lines:
        raise ValueError("a line is not in canonical form")
    header, end = documents[0]["wardkey audit export"], documents[-1]["end"]
    if header["format"] != 1:
        raise ValueError("not an export of format 1")
    keys = [base64.b64decode(key) for key in header["keys"]]
    first = position = header["first"]
    known = dict(zip(pieces(0, first), map(bytes.fromhex, header["left"]), strict=True))
    chain, unsealed, ids = [], 0, set()
    for line, document in zip(lines[1:-1], documents[1:-1], strict=True):
        if "checkpoint" in document:
            chain.append((document, position))
        elif "unsealed" in document:
            unsealed += 1
        elif "leaves" not in document:
            if (
                unsealed
                or document["format"] != 1
                or document["tenant"] != header["tenant"]
                or document["id"] in ids
            ):
                raise ValueError(f"the entry at position {position} does not belong there")
            ids.add(document["id"])
            known[position, position + 1] = leaf(line)
            position += 1
    if end["entries"] != position - first or end["checkpoints"] != len(chain) or end["unsealed"] != unsealed:
        raise ValueError("the last line speaks of other numbers than the file has")
    covered, previous = 0, None
    for line, place in chain:
        checkpoint = line["checkpoint"]
        covered = checkpoint["size"]
        check_signature(line, keys)
        if covered != place:
            if line is not chain[-1][0] or place != position or covered < position:
                raise ValueError(f"checkpoint {checkpoint['number']} is not where it belongs")
            known |= dict(zip(pieces(position, covered), map(bytes.fromhex, end["right"]), strict=True))
        if checkpoint["tenant"] != header["tenant"] or root(0, covered, known).hex() != checkpoint["root"]:
            raise ValueError(f"checkpoint {checkpoint['number']} is of other entries")
        if (
            previous is None
            and first == 0
            and (checkpoint["number"], checkpoint["previous"]) != (1, "0" * 64)
        ):
            raise ValueError("the first checkpoints are missing")
        if previous is not None:
            follows = checkpoint["number"] == previous["number"] + 1
            if not follows or checkpoint["previous"] != sha256(canonical(previous)).hex():
                raise ValueError(f"checkpoint {checkpoint['number']} does not follow the one ahead of it")
            for time in ("at", "settled"):
                if checkpoint.get(time, "") < previous.get(time, ""):
                    raise ValueError(f"checkpoint {checkpoint['number']} is older than the one ahead of it")
        previous = checkpoint
    if covered < position:
        raise ValueError("no checkpoint covers the last entries")
    signers = sorted({line["checkpoint"]["key"] for line, _ in chain})
    return f"tenant {header['tenant']}, positions {first} to {position - 1}, signed by {', '.join(signers)}"


def check_proof(data: bytes) -> str:
    """Return what is proven. Raises whatever comes to hand where it is not."""
    proof = json.loads(data)["wardkey audit proof"]
    checkpoint, position = proof["checkpoint"], proof["position"]
    if (
        canonical({"wardkey audit proof": proof}) + b"\n" != data
        or proof["entry"]["tenant"] != checkpoint["tenant"]
    ):
        raise ValueError("not a proof")
    if proof["format"] != 1 or proof["entry"]["format"] != 1:
        raise ValueError("not a proof of format 1")
    check_signature(proof, [base64.b64decode(proof["key"])])
    known = {(position, position + 1): leaf(canonical(proof["entry"]))}
    begin, end, siblings = 0, checkpoint["size"], []
    while end - begin > 1:  # from the root down: which half is the entry in, and which is the sibling?
        middle = begin + max(1 << bit for bit in range(end.bit_length()) if 1 << bit < end - begin)
        siblings.append((middle, end) if position < middle else (begin, middle))
        begin, end = (begin, middle) if position < middle else (middle, end)
    known |= dict(zip(reversed(siblings), map(bytes.fromhex, proof["path"]), strict=True))
    if begin != position or root(0, checkpoint["size"], known).hex() != checkpoint["root"]:
        raise ValueError("the entry is not in the log that the checkpoint signs")
    return f"entry {proof['entry']['id']} of tenant {checkpoint['tenant']}, signed by {checkpoint['key']}"


if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes()
    print(check_proof(content) if content.startswith(b'{"wardkey audit proof"') else check_export(content))
