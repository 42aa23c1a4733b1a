"""``wardkey dashboard html`` in a real browser: it is read; nothing is loaded or run; names are names."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metrics.conftest import Service, prometheus_of
from tests.support.chromium import Chromium
from tests.support.cli import Wardkey
from tests.support.database import Connection
from wardkey.monitoring import panels

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def wardkey(eventful: Service, admin: Connection) -> Wardkey:
    admin.execute("update ward_internal.tenants set name = %s where slug = 'south'", [SCRIPT])
    return Wardkey(eventful.database.cluster.home.path)


@pytest.fixture(scope="module")
def page(
    wardkey: Wardkey, eventful: Service, admin: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The platform's, with curves of a Prometheus."""
    directory = tmp_path_factory.mktemp("page")
    with prometheus_of(eventful, admin, directory / "prometheus", None) as running:
        wardkey("dashboard", "html", "--output", f"{directory}/page.html", "--prometheus", running.url)
    path: Path = directory / "page.html"
    assert path.stat().st_mode & 0o777 == 0o600
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture
def shown(browser: Chromium, page: Path) -> Chromium:
    browser.complaints.clear()
    browser._requests.clear()
    browser.open(page)
    browser.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    return browser


def text(browser: Chromium, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({selector!r}).innerText"))


def titles(browser: Chromium, selector: str) -> list[str]:
    texts: list[str] = browser.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.innerText)")
    return texts


def test_it_has_every_panel_of_platform_and_tenants(shown: Chromium) -> None:
    assert shown.evaluate("document.title") == "wardkey: platform"
    assert titles(shown, "#platform h3") == [panel.title for panel in panels.PLATFORM]
    assert titles(shown, "#together h3") == [panel.title for panel in panels.TENANT]
    sections = titles(shown, "section.tenant h2")
    assert {"north", "south"} <= set(sections)
    assert len(titles(shown, "section.tenant h3")) == len(sections) * len(panels.TENANT)


def test_figures_are_those_of_now(shown: Chromium, eventful: Service) -> None:
    rows = [row.split("\t") for row in titles(shown, "#tenants tbody tr")]
    (north,) = (row for row in rows if row[0] == "north")
    assert north[2:] == ["active", "2", "1", "0", "3", "4"]  # status, transactions … rows written
    said = text(shown, "#platform")
    assert "up: keeper\n1" in said and "up: scribe\n1" in said and "backup\n" in said
    tenant = " ".join(titles(shown, "section.tenant"))
    assert (
        "fields opened\n6" in tenant and "rows written: insert\n4" in tenant and "key due: data\n" in tenant
    )


def test_curves_are_drawn(shown: Chromium) -> None:
    for section in ("#platform", "#together", "section.tenant"):
        assert shown.evaluate(f"document.querySelectorAll('{section} svg polyline').length") >= 10, section
    places = "[...document.querySelectorAll('circle')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
    points = shown.evaluate(places)
    assert all(0 <= x <= 320 and 0 <= y <= 84 for x, y in points)
    legends = titles(shown, "ul.legend li")
    assert any(each.startswith("released: ") for each in legends) and not any("{" in each for each in legends)


def test_a_script_in_a_name_is_a_name(shown: Chromium) -> None:
    assert SCRIPT in text(shown, "#tenants") and SCRIPT in " ".join(titles(shown, "summary"))
    assert shown.evaluate("document.title") == "wardkey: platform"
    for tag in ("script", "img", "iframe", "link", "object", "form", "base", "a"):
        assert shown.evaluate(f"document.querySelectorAll('{tag}').length") == 0, tag
    assert shown.evaluate("document.querySelectorAll('[style], [onerror], [href], [src]').length") == 0


def test_nothing_is_loaded_and_the_policy_hinders_nothing_of_ours(shown: Chromium, page: Path) -> None:
    assert shown.requests == [page.as_uri()] and shown.complaints == []
    assert shown.evaluate("getComputedStyle(document.querySelector('article')).borderTopLeftRadius") == "8px"


def test_the_policy_stops_what_should_ever_get_in(browser: Chromium, page: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.html"
    put = (
        "<script>document.title='owned'</script><img src='http://evil.example/x'><p style='color: red'>x</p>"
    )
    evil.write_text(page.read_text().replace("<main>", f"<main>{put}"))
    browser.open(evil)
    assert browser.evaluate("document.title") == "wardkey: platform"
    assert not any("evil.example" in each for each in browser.requests)
    assert len(browser.complaints) >= 3


def test_it_reads_in_the_dark_and_on_a_narrow_screen(browser: Chromium, page: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", features=feature)
        browser.open(page, width=360)
        channels = "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).map(Number)"
        ink, ground = (sum(browser.evaluate(channels.format(each))) for each in ("color", "backgroundColor"))
        assert abs(ink - ground) > 400
        grounds.append(ground)
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert grounds[0] > 600 > 200 > grounds[1]
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_a_tenants_page_has_nothing_of_another(wardkey: Wardkey, browser: Chromium, tmp_path: Path) -> None:
    done = wardkey("dashboard", "--html", "--tenant", "north")
    for other in ("south", "owned", "keeper requests", "tenants: active"):
        assert other not in done.stdout, other
    (tmp_path / "north.html").write_text(done.stdout)
    browser.open(tmp_path / "north.html")
    assert browser.evaluate("document.title") == "wardkey: north"
    assert titles(browser, "h3") == [panel.title for panel in panels.TENANT]
    assert browser.evaluate("document.querySelectorAll('svg').length") == 0


def test_what_cannot_be_asked_is_said(wardkey: Wardkey, eventful: Service) -> None:
    assert "no such tenant" in wardkey("dashboard", "html", "--tenant", "nobody", code=1).stderr
    refused = wardkey("dashboard", "html", "--prometheus", "http://127.0.0.1:1", code=3)
    assert "Prometheus cannot be asked: no connection" in refused.stderr and refused.stdout == ""
    other = f"http://127.0.0.1:{eventful.port}"
    assert "HTTP status 405" in wardkey("dashboard", "html", "--prometheus", other, code=3).stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:  # speaks, but not HTTP
        thread = threading.Thread(target=lambda: _greet(silent))
        thread.start()
        other = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused = wardkey("dashboard", "html", "--prometheus", other, code=3)
        thread.join()
    assert "its answer is not Prometheus'" in refused.stderr and "secret" not in refused.stderr
    assert "not an address of HTTP" in wardkey("dashboard", "html", "--prometheus", "x", code=1).stderr
    assert "export" in wardkey("dashboard").stdout


def _greet(silent: socket.socket) -> None:
    connection, _ = silent.accept()
    with connection:
        connection.sendall(b"220 secret.example ESMTP\r\n\r\n")
        while connection.recv(65536):
            pass
