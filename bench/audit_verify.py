"""How long does it take to verify an export of 1,000,000 audit entries offline, and in how much memory?

No server: the export is made here, as the scribe and ``wardkey audit export`` would; a checkpoint is signed
every 1,000 entries, and another figure says what each costs. The verifier runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _common import RESULTS, Figure, line
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from wardkey_core.log import entry
from wardkey_core.log.checkpoint import fingerprint, sign
from wardkey_core.log.exportfile import Header, Writer
from wardkey_core.log.merkle import Range, leaf_hash

from wardkey.audit.prove import prove
from wardkey.audit.verify import verify

ENTRIES = 1_000_000
BETWEEN = 1_000  # entries between checkpoints
_TENANT = "3ffafb0c-6efc-5c65-1e98-7832b77c9cda"
_START = datetime(2026, 3, 1, tzinfo=UTC)


def moment(number: int) -> str:
    return (_START + timedelta(milliseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def make_entry(number: int) -> dict[str, object]:
    """Return nine reads of a patient and one change, as a clinic has them."""
    members: dict[str, object] = {
        "format": 1,
        "tenant": _TENANT,
        "id": str(7_000_000 + number * 3),
        "at": moment(number),
        "kind": "read",
        "operation": "read",
        "context": f"{number // 50:032x}",
        "subject": f"clinician-{number % 40}@springfield.example",
        "role": "EVALUATOR",
        "purpose": "treatment",
        "database_role": "tenant_springfield",
        "address": "10.20.30.40",
        "application": "clinic portal",
        "transaction": str(900_000 + number // 20),
        "statement": number % 20,
        "table": "patients",
        "row": str(number % 50_000),
        "columns": ["name", "ssn", "birth_date", "phone"],
    }
    if number % 10 == 0:
        sealed = "01000000012e041ec68f5dcd2ecb5db4c59629531b1f8201f2d4c7bea03c8197a56d24fb"
        image = '{"id": %d, "name": "\\\\x' + sealed + '"}'
        members |= {"kind": "write", "operation": "update", "columns": ["name"]}
        members |= {"old": image % number, "new": image % (number + 1)}
    return members


def export(path: Path, entries: int, between: int) -> float:
    """Write an export; return how long the log itself took (entries, tree, checkpoints), in seconds."""
    key = Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes_raw()
    tree, last, start = Range(), None, time.perf_counter()
    with path.open("wb", buffering=1 << 20) as stream:
        writer = Writer(stream, Header(_TENANT, [public_key]))
        for number in range(entries):
            data = entry.encode(make_entry(number))
            leaf = leaf_hash(data)
            tree.append(leaf)
            writer.entry(data, leaf)
            if (number + 1) % between == 0 or number + 1 == entries:
                last = sign(
                    last.checkpoint if last else None,
                    tenant=_TENANT,
                    size=tree.end,
                    root=tree.root(),
                    at=moment(number),
                    settled=moment(number),
                    public_key=public_key,
                    signer=key.sign,
                )
                writer.checkpoint(last)
        writer.end()
    return time.perf_counter() - start


def verified(path: Path) -> tuple[float, float]:
    """Return seconds and peak MB of a process that verifies the file."""
    done = subprocess.run([sys.executable, __file__, str(path)], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def verify_here(path: Path) -> None:
    start = time.perf_counter()
    with path.open("rb") as stream:
        report = verify(stream)
    seconds = time.perf_counter() - start
    if not report.ok or not report.complete_to or len(report.signers) != 1:
        raise AssertionError(f"a sound export is not sound: {report.defect}")
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wardkey-bench-", dir="/tmp") as directory:
        large, small, dense = (Path(directory) / name for name in ("large", "small", "dense"))
        made = export(large, ENTRIES, BETWEEN)
        export(small, ENTRIES // 10, BETWEEN)
        export(dense, ENTRIES // 10, 10)
        (seconds, peak), (less_seconds, less_peak) = verified(large), verified(small)
        each = (verified(dense)[0] - less_seconds) / (ENTRIES // 10 / 10 - ENTRIES // 10 / BETWEEN)
        start = time.perf_counter()
        with large.open("rb") as stream:
            proof = prove(stream, str(7_000_000 + 500_000 * 3))
        proving = time.perf_counter() - start
        if proof.signed.checkpoint.key != fingerprint(proof.public_key):
            raise AssertionError("the proof names another key")
        size = large.stat().st_size
    figures = [
        Figure("verifying an export of 1,000,000 entries", seconds, "s", 60),
        Figure("… peak memory", peak, "MB", 100),
        Figure("… of a tenth of it: peak memory", less_peak, "MB"),
        Figure("… for each checkpoint in it, besides", each * 1e6, "µs"),
        Figure("an entry in the export", size / ENTRIES, "bytes"),
        Figure(
            "making and hashing an entry, with its share of checkpoint and file", made / ENTRIES * 1e6, "µs"
        ),
        Figure("finding and proving one entry of 1,000,000", proving, "s"),
        Figure("… the proof", len(proof.encode()), "bytes"),
    ]
    machine = {
        "cpus": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "client_python": sys.version.split()[0],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    rows = [{**asdict(figure), "ok": figure.ok} for figure in figures]
    report = {
        "bench": "audit_verify",
        "seconds": round(made + seconds, 1),
        "machine": machine,
        "figures": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "audit_verify.json").write_text(json.dumps(report, indent=2) + "\n")
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        verify_here(Path(sys.argv[1]))
    else:
        main()
