"""Run every bench on one server; print the figures, write results/all.json and results/all.png.

``python bench/run.py [NAME…]``: only these. Exit code 1 when a figure misses its bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import RESULTS, line, shared_home

BENCHES = (
    "rivals",
    "page",
    "sqlalchemy_page",
    "client",
    "roles",
    "honey",
    "field",
    "first_login",
    "warm_login",
    "cold_start",
    "cold_key",
    "cold_read",
    "kms_calls",
    "kms_calls_5_minutes",
    "memory",
    "provisioning",
    "lookup_1000_tenants",
    "rewrap",
    "resealing",
    "during_resealing",
    "audit",
    "audit_verify",
    "big_scan",
    "scribe",
    "publisher",
    "cache",
    "metrics",
    "incident_scope",
    "search",
    "lint",
    "gateway",
)


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    reports: list[dict[str, Any]] = []
    failed: list[str] = []
    with shared_home():
        for name in names or BENCHES:
            print(f"\n{name}", flush=True)
            done = subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False)
            if done.returncode == 0:
                reports.append(json.loads((RESULTS / f"{name}.json").read_text()))
            else:
                failed.append(name)
    if not reports:
        return 1
    (RESULTS / "all.json").write_text(json.dumps(reports, indent=2) + "\n")
    barred = [figure for report in reports for figure in report["figures"] if figure["bar"] is not None]
    print("\nagainst the bars")
    for figure in barred:
        print(line(figure) + f"   {used(figure):.2f} of it")
    plot(barred, RESULTS / "all.png")
    print(f"\n{RESULTS / 'all.json'}\n{RESULTS / 'all.png'}")
    for name in failed:
        print(f"{name} did not run to its end", file=sys.stderr)
    return 1 if failed or not all(figure["ok"] for figure in barred) else 0


def used(figure: dict[str, Any]) -> float:
    """Return how much of its bar a figure uses: 1 is just at it, more is missed."""
    value, bar = figure["value"], figure["bar"]
    if not bar:  # nothing at all is allowed
        return float(value > 0)
    return float(value / bar if figure["sense"] == "at most" else bar / value)


def plot(figures: list[dict[str, Any]], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install 'wardkey[bench]'", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = [used(figure) for figure in figures]
    labels = [f"{figure['what']}\n{figure['value']:.3g} {figure['unit']}" for figure in figures]
    view, axes = pyplot.subplots(figsize=(11, 0.5 * len(figures) + 1.5), layout="constrained")
    bars = axes.barh(labels, shares, color=["#2a9d8f" if figure["ok"] else "#d1495b" for figure in figures])
    axes.bar_label(bars, [f" {share:.2f}" for share in shares])
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("share of the bar (1: just met)")
    axes.spines[["top", "right"]].set_visible(False)
    view.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
