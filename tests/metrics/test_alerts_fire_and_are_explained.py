"""Each alert fires where it should and not else, says promtool; its runbook says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from wardkey.metrics import registry
from wardkey.monitoring import alerts

ROOT = Path(__file__).parents[2]
DAY = 86_400
# By page: a series, values that raise the alert and values that do not, as promtool writes them, and when to
# look. promtool's clock begins at 0: a moment in the past is negative.
CASES: dict[str, tuple[str, str, str, str]] = {
    "metrics-missing": ("up", "0x60", "1x60", "10m"),
    "keeper-down": ('wardkey_up{service="keeper"}', "0x60", "1x60", "10m"),
    "scribe-down": ('wardkey_up{service="scribe"}', "0x60", "1x60", "10m"),
    "scribe-failing": ("wardkey_scribe_failures", "3x60", "2x60", "10m"),
    "slot-filling": ('wardkey_slot_bytes{part="kept"}', "9000000000x60", "8000000x60", "10m"),
    "audit-behind": ("wardkey_audit_unsigned_since_timestamp_seconds", "0x60", "1000x60", "15m"),
    "unpublished": ("wardkey_unpublished_entries", "1001x60", "5000x5 0x5 5000x50", "25m"),
    "kms-errors": ("wardkey_kms_errors_total", "0+1x60", "7x60", "10m"),
    "tampered": ('wardkey_events_total{event="tampered"}', "0x5 1x50", "1x60", "10m"),
    "honey-row-opened": ("wardkey_honey_rows_opened_total", "0x5 1x50", "1x60", "10m"),
    "refusals-unusual": ('wardkey_refusals_total{kind="token"}', "0x1450 0+3x60", "0+3x1510", "1500m"),
    "budget-exhausted": ('wardkey_events_total{event="budget_exhausted"}', "0x5 1x50", "1x60", "10m"),
    "break-glass-unreviewed": ("wardkey_break_glass_unreviewed", "1x3000", "1x1000 0x20 1x2000", "2900m"),
    "key-overdue": ('wardkey_key_due_timestamp_seconds{key="data"}', f"{-2 * DAY}x100", "0x100", "90m"),
    "rotation-slow": ("wardkey_rotation_started_timestamp_seconds", f"{-2 * DAY}x100", "0x100", "90m"),
    "baa-ends": ("wardkey_baa_ends_timestamp_seconds", f"{20 * DAY}x100", f"{40 * DAY}x100", "90m"),
    "backup-old": ("wardkey_backup_timestamp_seconds", f"{-2 * DAY}x100", "0x100", "90m"),
    "backup-unproven": (
        "wardkey_backup_proven_timestamp_seconds",
        f"{-36 * DAY}x100",
        f"{-34 * DAY}x100",
        "90m",
    ),
}


def with_job(series: str) -> str:
    labels = 'job="wardkey-acme",tenant="acme"'
    return series.replace("{", "{" + labels + ",") if "{" in series else f"{series}{{{labels}}}"


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "apt-get install prometheus"
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_every_alert_has_a_case_and_every_page_an_alert() -> None:
    pages = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")} - {"index"}
    assert pages == {alert.page for alert in alerts.every()} == set(CASES)
    assert len({alert.name for alert in alerts.every()}) == len(pages)


@pytest.mark.parametrize("alert", alerts.every(), ids=lambda alert: alert.page)
def test_the_runbook_says_what_it_means_where_to_look_and_what_to_do(alert: alerts.Alert) -> None:
    page = (ROOT / f"docs/runbooks/{alert.page}.md").read_text()
    parts = dict(re.findall(r"^## (.+)\n\n((?:.+\n)+)", page, re.M))
    assert list(parts) == ["What it means", "Look", "Do"]
    assert all(len(text) > 12 for text in parts.values())


def test_alerts_ask_for_metrics_that_there_are() -> None:
    known = {"up"}
    for metric in registry.every():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            metric.kind, ("",)
        )
        known |= {metric.name + suffix for suffix in suffixes}
    for alert in alerts.every():
        names = re.findall(r"\b(wardkey_\w+|up)\b(?=[\[{ ]|$)", re.sub(r'"[^"]*"', "", alert.expression))
        assert names and set(names) <= known, (alert.page, set(names) - known)


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(alerts.rules("https://runbooks.example"))
    checked = promtool("check", "rules", "rules.yml", cwd=tmp_path)
    assert checked.returncode == 0 and f"{len(CASES)} rules found" in checked.stdout, checked.stdout


@pytest.mark.parametrize("alert", alerts.every(), ids=lambda alert: alert.page)
def test_an_alert_fires_where_it_should_and_not_else(alert: alerts.Alert, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(alerts.rules("https://runbooks.example"))
    cases = [_case(alert, raised=raised) for raised in (True, False)]
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": cases}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    tested = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _case(alert: alerts.Alert, *, raised: bool) -> dict[str, object]:
    series, bad, good, at = CASES[alert.page]
    rule = next(each for each in yaml.safe_load(alerts.rules("https://runbooks.example"))["groups"][0]["rules"]
                if each["alert"] == alert.name)  # fmt: skip
    expected = {"exp_labels": _labels(alert, series), "exp_annotations": rule["annotations"]}
    if "$value" in alert.summary or "$labels" in alert.summary:
        expected["exp_annotations"] = {**rule["annotations"], "summary": _SUMMARIES[alert.page]}
    return {
        "interval": "1m",
        "input_series": [{"series": with_job(series), "values": bad if raised else good}],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert.name, "exp_alerts": [expected] if raised else []}
        ],
    }


def _labels(alert: alerts.Alert, series: str) -> dict[str, str]:
    labels = {"job": "wardkey-acme", "tenant": "acme", "severity": alert.severity}
    if "sum by (job, tenant)" not in alert.expression:
        labels |= dict(re.findall(r'(\w+)="(\w+)"', series))
    return labels


_SUMMARIES = {
    "metrics-missing": "Prometheus cannot read metrics of wardkey-acme",
    "slot-filling": "8.382GiB of WAL wait for the scribe",
    "audit-behind": "entries of acme have waited for a signature for more than 5 minutes",
    "unpublished": "Kafka has lacked entries of acme for 10 minutes",
    "tampered": "values of acme did not open",
    "refusals-unusual": "45 refusals of acme in 15 minutes",
    "budget-exhausted": "a person at acme has used up a budget",
    "break-glass-unreviewed": "an emergency access at acme has not been reviewed for two days",
    "key-overdue": "the data key of acme should have been replaced",
    "rotation-slow": "a rotation of acme has not ended for a day",
    "baa-ends": "the business associate agreement of acme ends in 19d 22h 30m 0s",
    "backup-old": "the newest backup of database and keys is 2d 1h 30m 0s old",
    "backup-unproven": "no backup was proven to open for 36d 1h 30m 0s",
}
