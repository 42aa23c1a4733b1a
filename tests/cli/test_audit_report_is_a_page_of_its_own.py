"""``wardkey audit report`` in a real browser: it is read; nothing is loaded or run; no secret is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.databases import SCRIPT, SECRET, Filled, clinic_month
from tests.support.chromium import Chromium
from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.embedded import Cluster


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> Iterator[tuple[Database, Filled]]:
    with clone(cluster, template) as database, database.admin() as connection:
        yield database, clinic_month(connection)


@pytest.fixture(scope="module")
def page(filled: tuple[Database, Filled], tmp_path_factory: pytest.TempPathFactory) -> Path:
    database, _ = filled
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    wardkey = Wardkey(database.cluster.home.path)
    facts = wardkey.json(
        "--dsn", database.dsn(), "audit", "report", "--tenant", "acme", "--html", str(path),
        "--from", "2026-03-02", "--to", "2026-03-24", "--zone", "Europe/Berlin",
    )  # fmt: skip
    assert facts["log_is_good"] is True and facts["entries"] > 1000
    assert path.stat().st_mode & 0o777 == 0o600
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(browser: Chromium, page: Path) -> Chromium:
    browser.open(page)
    return browser


def text(browser: Chromium, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({selector!r}).innerText"))


def test_the_page_says_what_happened(shown):
    assert shown.evaluate("document.title") == "Audit report: acme"
    tiles = shown.evaluate("[...document.querySelectorAll('.tile')].map(tile => tile.innerText)")
    counts = {name: int(number.replace(",", "")) for number, name in (tile.split("\n") for tile in tiles)}
    assert counts == {
        "rows read": 20 * 20 + 620 - 1 + 400 + 1, "rows written": 20, "events": 8, "people": 3, "refusals": 2,
        "unusual days": 1,
    }  # fmt: skip
    assert text(shown, "#verdict").startswith("Is the log whole?\n") and "Yes." in text(shown, "#verdict")


def test_the_verdict_names_root_and_key(shown, filled):
    _, log = filled
    assert log.fingerprint in text(shown, "#verdict") and log.tree.root().hex() in text(shown, "#verdict")


def test_the_unusual_night_is_named_and_explained(shown):
    said = text(shown, "#anomalies")
    assert "dr.jones" in said and "nurse.kim" not in said
    assert re.search(r"Read 4\d\d rows on 2026-03-15; on its 19 other days around it the median is 20", said)
    assert (
        shown.evaluate("document.querySelectorAll('#anomalies svg.series rect[fill=\"#c0392b\"]').length")
        == 1
    )


def test_plots_are_drawn_with_marks_of_a_size(shown):
    boxes = shown.evaluate(
        "[...document.querySelectorAll('#days svg.days g rect')].map(r => r.getBoundingClientRect().height)"
    )
    assert len(boxes) >= 40 and max(boxes) > 100
    assert shown.evaluate("document.querySelectorAll('#hours svg.hours g').length") == 5 * 24
    titles = shown.evaluate("[...document.querySelectorAll('#days g > title')].map(t => t.textContent)")
    assert len(titles) == 22 and titles[1].startswith("2026-03-03: ")


def test_hours_are_those_of_the_zone_asked_for(shown):
    """The night's 400 rows began at 02:00 UTC, 03:00 in Berlin."""
    titles = shown.evaluate("[...document.querySelectorAll('#hours g > title')].map(t => t.textContent)")
    assert any(title.startswith("dr.jones, 03:00 to 03:59: 4") for title in titles)


def test_a_script_in_a_name_is_a_name(shown):
    assert SCRIPT in text(shown, "#people")
    for tag in ("script", "img", "iframe", "link", "object", "form", "base"):
        assert shown.evaluate(f"document.querySelectorAll('{tag}').length") == 0, tag
    assert (
        shown.evaluate("document.querySelectorAll('[style], [onerror], [onclick], [href], [src]').length")
        == 0
    )


def test_nothing_is_loaded_and_the_policy_hinders_nothing_of_ours(shown, page):
    assert shown.requests == [page.as_uri()]
    assert shown.complaints == []
    assert shown.evaluate("getComputedStyle(document.querySelector('.tile')).borderTopLeftRadius") == "8px"


def test_the_policy_stops_what_should_ever_get_in(browser, page, tmp_path):
    """The same page with a script, a picture and a style put in, as if something had not been escaped."""
    evil = tmp_path / "evil.html"
    put = (
        "<script>document.title='owned'</script><img src='http://evil.example/x'>"
        "<p id='evil' style='color: red' onclick=\"document.title='owned'\">x</p>"
        "<style>body { color: red }</style>"
    )
    evil.write_text(page.read_text().replace("<main>", f"<main>{put}"))
    with Chromium() as other:
        other.open(evil)
        assert other.evaluate("document.title") == "Audit report: acme"
        assert other.evaluate("getComputedStyle(document.getElementById('evil')).color") != "rgb(255, 0, 0)"
        assert not any("evil.example" in address for address in other.requests)
        assert len(other.complaints) >= 3


def test_no_value_and_no_row_is_in_it(page):
    content = page.read_text()
    assert SECRET not in content
    visible = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", content, flags=re.S)
    visible = re.sub(r"<code>.*?</code>|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", visible)
    assert not re.search(r"\b10[0-9]{2}\b(?!,)", visible), "ids of rows read"


@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_screen(browser, page, width):
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    narrow = (
        "[...document.querySelectorAll('td')].filter(cell => cell.getBoundingClientRect().width < 25).length"
    )
    assert browser.evaluate(narrow) == 0
    browser.screenshot(page.with_name(f"report-{width}.png"))


def test_a_log_that_was_tampered_with_is_said_to_be(filled, tmp_path, browser):
    database, log = filled
    with database.admin() as connection:
        query = "update ward_internal.audit_log set row_id = 'x' where tenant_id = %s and row_id = '1000'"
        connection.execute(query, [log.tenant])
        wardkey, path = Wardkey(database.cluster.home.path), tmp_path / "bad.html"
        facts = wardkey.json(
            "--dsn", database.dsn(), "audit", "report", "--tenant", "acme", "--html", str(path),
            "--from", "2026-03-02",
        )  # fmt: skip
        connection.execute(
            "update ward_internal.audit_log set row_id = '1000' where tenant_id = %s and row_id = 'x'",
            [log.tenant],
        )
    assert facts["log_is_good"] is False
    browser.open(path)
    assert "was changed after it was sealed" in text(browser, ".verdict.bad")
