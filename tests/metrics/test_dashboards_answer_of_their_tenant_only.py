"""Every PromQL of the dashboards answers at a real Prometheus; a tenant's says nothing of another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.metrics.conftest import SLUGS, Prometheus, Service, prometheus_of
from tests.support.cli import Wardkey
from tests.support.database import Connection
from wardkey.errors import ServerError
from wardkey.metrics import registry
from wardkey.monitoring import grafana, history, panels

ROOT = Path(__file__).parents[2]
RUNBOOKS = "https://runbooks.example/"
ORGS = json.dumps([{"id": 1, "name": "Main Org."}, {"id": 7, "name": "north"}, {"id": 9, "name": "south"}])
UNITS = {value for value in vars(units).values() if isinstance(value, str)}


@pytest.fixture(scope="module")
def everything(
    eventful: Service, admin: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """The platform's Prometheus, which reads the platform's path and those of both tenants."""
    with prometheus_of(eventful, admin, tmp_path_factory.mktemp("all"), None) as running:
        yield running


@pytest.fixture(scope="module")
def of_south(
    eventful: Service, admin: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """The Prometheus of south's organisation, which has south's token only."""
    with prometheus_of(eventful, admin, tmp_path_factory.mktemp("south"), "south") as running:
        yield running


@pytest.fixture(scope="module")
def written(eventful: Service, admin: Connection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("grafana")
    source, theirs = "http://127.0.0.1:9090", "http://prometheus-{tenant}:9090/"
    made = grafana.write(admin, directory, source, theirs, ORGS, RUNBOOKS)
    assert set(SLUGS) <= set(made.tenants) and not set(SLUGS) & set(made.lacking)
    return directory


def dashboard(directory: Path, slug: str | None) -> dict[str, Any]:
    folder = f"tenants/{slug}" if slug else "platform"
    made: dict[str, Any] = json.loads((directory / "dashboards" / folder / "wardkey.json").read_text())
    return made


def shown(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in made["panels"] if panel["type"] != "row"]


def queries(made: dict[str, Any], chosen: str = ".+") -> list[str]:
    """Return every PromQL, with Grafana's variables as it fills them in."""
    texts = [target["expr"] for panel in shown(made) for target in panel["targets"]]
    return [each.replace(panels.RATE, "1m").replace("$tenant", chosen) for each in texts]


def misfits(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """Yield where a value is not of the type that Grafana's generated classes give it; they do not check."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        value = hint.from_json(value)
    if origin in (Union, UnionType):
        tries = [list(misfits(value, each, path)) for each in arguments]
        yield from [] if [] in tries else max(tries, key=lambda each: each[0].count("/"))  # the deepest
    elif origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)):
        if value not in (arguments or [each.value for each in hint]):
            yield f"{path}: {value!r} is no {hint}"
    elif origin in (list, dict) and isinstance(value, origin):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from misfits(each, arguments[-1], f"{path}/{key}")
    elif not isinstance(value, (int, float) if hint is float else object if hint is Any else origin or hint):
        yield f"{path}: {value!r} is no {hint}"
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, each in get_type_hints(type(value)).items():
            yield from misfits(getattr(value, name), each, f"{path}/{name}")


def unanswered(running: Prometheus, asked: list[str]) -> list[str]:
    """Wait until every query has an answer, and return those that have none then."""
    deadline = time.monotonic() + 60
    while (lacking := [each for each in asked if not running.query(each)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return lacking


def test_every_query_of_the_platform_answers(everything: Prometheus, written: Path) -> None:
    made = dashboard(written, None)
    asked = queries(made)
    assert len(asked) > 30 and not any("$" in each for each in asked)
    assert unanswered(everything, asked) == []
    assert unanswered(everything, queries(made, "north|south")) == []


def test_the_variable_offers_the_tenants(everything: Prometheus, written: Path) -> None:
    (variable,) = dashboard(written, None)["templating"]["list"]
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
    assert asked and asked[2] == variable["name"] and variable["multi"] and variable["includeAll"]
    answers = everything.ask(f"label/{asked[2]}/values", **{"match[]": asked[1]})
    assert set(SLUGS) <= set(answers)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_query_of_a_tenant_answers_of_it_alone(
    everything: Prometheus, written: Path, slug: str
) -> None:
    asked = queries(dashboard(written, slug))
    assert len(asked) > 15 and unanswered(everything, asked) == []
    selectors = {each for text in asked for each in re.findall(r"\bwardkey_\w+(?:\{[^}]*\})?", text)}
    answers = {each: {labels["tenant"] for labels in everything.query(each)} for each in selectors}
    lacking = [each for each, owners in answers.items() if owners != {slug}]
    # this is there only while an entry waits for its checkpoint; else the panel has 0 of another metric
    assert lacking in ([], [f'wardkey_audit_unsigned_since_timestamp_seconds{{tenant="{slug}"}}'])
    assert all(owners <= {slug} for owners in answers.values()) and len(answers) > 15


def test_what_a_tenant_does_is_in_its_curves(
    everything: Prometheus, written: Path, eventful: Service
) -> None:
    """A rate and a quantile are numbers once something happens, and no longer 0 and none."""
    with eventful.database.tenant("north") as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [eventful.database.token("north", "dr.again")])
        connection.execute("select * from visits")
    asked = queries(dashboard(written, "north"))
    deadline = time.monotonic() + 60
    for part in ("wardkey_logins_total", "wardkey_rows_opened_total", "quantile(0.5,", "quantile(0.99,"):
        (expression,) = (each for each in asked if part in each)
        while not everything.ask("query", query=f"{expression} > 0")["result"]:
            assert time.monotonic() < deadline, expression
            time.sleep(0.5)


def test_a_tenants_dashboard_finds_nothing_where_only_another_is(of_south: Prometheus, written: Path) -> None:
    """And its own answers there: it needs nothing else."""
    assert unanswered(of_south, queries(dashboard(written, "south"))) == []
    assert [each for each in queries(dashboard(written, "north")) if of_south.query(each)] == []


def test_a_tenants_prometheus_has_nothing_of_others_whatever_is_asked(of_south: Prometheus) -> None:
    """Who sees a dashboard may ask its data source anything: its matcher protects nobody."""
    for asked in (
        '{__name__=~".+"}',
        'wardkey_transactions_total{tenant="north"} or up',
        "max_over_time(up[1h])",
    ):
        labels = of_south.query(asked)
        assert {each.get("job") for each in labels} == {"wardkey-south"}, asked
    assert of_south.ask("label/tenant/values") == ["south"]
    assert of_south.ask("label/job/values") == ["wardkey-south"]
    targets = of_south.ask("targets")["activeTargets"]
    assert [each["scrapeUrl"].rpartition("/")[2] for each in targets] == ["south"]
    assert of_south.query("wardkey_up") == [] and of_south.query("wardkey_honey_rows_opened_total") == []


def test_organisations_have_their_own_dashboards_and_data_source(written: Path, admin: Connection) -> None:
    sources = yaml.safe_load((written / "provisioning/datasources/wardkey.yaml").read_text())["datasources"]
    assert {each["orgId"]: each["url"] for each in sources} == {
        1: "http://127.0.0.1:9090", 7: "http://prometheus-north:9090", 9: "http://prometheus-south:9090",
    }  # fmt: skip
    assert all(each["access"] == "proxy" and each["editable"] is False for each in sources)
    providers = yaml.safe_load((written / "provisioning/dashboards/wardkey.yaml").read_text())["providers"]
    folders = {each["orgId"]: Path(each["options"]["path"]) for each in providers}
    for number, slug in ((1, None), (7, "north"), (9, "south")):
        (file,) = folders[number].glob("**/*.json")
        assert json.loads(file.read_text()) == dashboard(written, slug)
    everything = "".join(file.read_text() for file in written.rglob("*") if file.is_file())
    for secret in ("wkm_", "dr.who", "dr.south", "password", "token="):
        assert secret not in everything, secret
    texts = (json.dumps(dashboard(written, "north")), json.dumps(dashboard(written, "south")))
    assert "south" not in texts[0] and "north" not in texts[1]


def test_the_same_tenants_give_the_same_bytes_and_gone_ones_go(
    written: Path, admin: Connection, service: Service
) -> None:
    def contents() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in written.rglob("*") if file.is_file()}

    def write() -> grafana.Written:
        return grafana.write(
            admin, written, "http://127.0.0.1:9090", "http://prometheus-{tenant}:9090", ORGS, RUNBOOKS
        )

    before = contents()
    slug = service.database.new_tenant()
    assert slug in write().lacking and dashboard(written, slug)
    admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    write()
    assert contents() == before and not (written / "dashboards/tenants" / slug).exists()


@pytest.mark.parametrize("slug", [None, *SLUGS])
def test_dashboards_are_what_the_types_of_grafana_say(written: Path, slug: str | None) -> None:
    """Grafana itself is in no registry that this reaches: its own generated types read the file instead."""
    made = dashboard(written, slug)
    plugins.register_default_plugins()
    read = Dashboard.from_json(made)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == made
    assert list(misfits(read, Dashboard)) == []
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", made["uid"]) and made["editable"] is False
    ids = [panel["id"] for panel in made["panels"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    for panel in shown(made):
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == {"type": "prometheus", "uid": "wardkey"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in made["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"


def test_panels_show_every_metric_and_no_other_and_link_their_runbooks(written: Path) -> None:
    known = {metric.name: metric for metric in registry.every()}
    for of, is_of_tenants in ((panels.TENANT, True), (panels.PLATFORM, False)):
        named = {name for panel in of for query in panel.queries for name in query.metrics}
        assert named == {name for name, one in known.items() if one.is_of_tenants == is_of_tenants}
    for panel in shown(dashboard(written, None)):
        for link in panel.get("links", []):
            page = link["url"].removeprefix(RUNBOOKS)
            assert (ROOT / f"docs/runbooks/{page}.md").exists(), page
    linked = {link["url"] for panel in shown(dashboard(written, None)) for link in panel.get("links", [])}
    pages = {panel.runbook for panel in (*panels.TENANT, *panels.PLATFORM)} - {""}
    assert linked == {RUNBOOKS + page for page in pages} and len(pages) > 12
    with pytest.raises(ValueError, match="not every selector has a matcher"):
        panels.Query("wardkey_up{OF} or wardkey_tenants", "").of('tenant="x"')


def test_what_would_mix_tenants_is_refused(admin: Connection, tmp_path: Path) -> None:
    one = "http://127.0.0.1:9090"
    for theirs in (None, one):
        with pytest.raises(ServerError, match="read each other's numbers"):
            grafana.write(admin, tmp_path, one, theirs, ORGS)
    for text in ('{"id": 1}', "[1]", "no JSON", '[{"id": 7, "name": "north"}, {"id": 7, "name": "south"}]'):
        with pytest.raises(ServerError, match="not a list of Grafana's organisations"):
            grafana.write(admin, tmp_path, one, one + "/{tenant}", text)
    assert grafana.organisations('[{"id": 1, "name": "north"}]') == {}
    for bad in (
        "127.0.0.1:9090",
        "javascript:alert(1)",
        "http://me:secret@x",
        "http://x/$HOME",
        "http://x/?a=b",
        "",
    ):
        with pytest.raises(ServerError, match="not an address of HTTP") as caught:
            history.url(bad)
        assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_them(eventful: Service, tmp_path: Path) -> None:
    wardkey = Wardkey(eventful.database.cluster.home.path)
    (tmp_path / "orgs.json").write_text(ORGS)
    arguments = (
        "dashboard",
        "export",
        "--directory",
        f"{tmp_path}/out",
        "--organisations",
        f"{tmp_path}/orgs.json",
    )
    refused = wardkey(*arguments, code=1)
    assert "read each other's numbers" in refused.stderr and not (tmp_path / "out").exists()
    facts = wardkey.json(*arguments, "--tenant-prometheus", "http://prometheus-{tenant}:9090")
    assert set(SLUGS) <= set(facts["tenants"]) and dashboard(tmp_path / "out", "north")
    tokens = tmp_path / "own" / "tokens"
    tokens.mkdir(parents=True)
    for owner, token in eventful.tokens.items():
        (tokens / (owner or "platform")).write_text(token)
    facts = wardkey.json("metrics", "config", "--dir", f"{tmp_path}/own", "--tenant", "south")
    assert facts["tenants"] == ["south"] and "north" not in (tmp_path / "own/prometheus.yml").read_text()
    refused = wardkey("metrics", "config", "--dir", f"{tmp_path}/none", "--tenant", "nobody", code=1)
    assert "no such tenant" in refused.stderr and not (tmp_path / "none").exists()


def test_without_the_sdk_it_is_said_what_to_install() -> None:
    script = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None; from wardkey.cli import main;"
        "sys.exit(main(['dashboard', 'export']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "dashboards need grafana_foundation_sdk" in done.stderr
    assert "pip install 'wardkey[dashboards]'" in done.stderr
