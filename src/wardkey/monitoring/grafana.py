"""Grafana's dashboards, and the files that provision them: an organisation for the platform and each tenant.

::

    dashboards/platform/wardkey.json
    dashboards/tenants/SLUG/wardkey.json
    provisioning/datasources/wardkey.yaml
    provisioning/dashboards/wardkey.yaml

What keeps a tenant from the others' numbers is not the matcher in its dashboard, for who may see a dashboard
may ask its data source anything. It is the data source: each organisation has one, of a Prometheus that reads
that tenant's path alone. No file has a token or a name of a person; the same tenants give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from ..daemon.files import write_atomically
from ..errors import ServerError
from . import panels
from .history import url
from .panels import Panel

__all__ = ["Written", "organisations", "platform", "tenant", "write"]

_SOURCE: Final = DataSourceRef("prometheus", "wardkey")
_NAME: Final = "wardkey.json"
_TENANTS: Final = """
select slug, id from ward_internal.tenants where status in ('active', 'suspended') order by slug"""
_WIDTH: Final = 8  # of a grid of 24


@dataclass(frozen=True, slots=True)
class Written:
    """``lacking``: tenants without an organisation in Grafana; theirs was not provisioned."""

    directory: Path
    tenants: Sequence[str]
    lacking: Sequence[str]


def platform(runbooks: str | None = None) -> str:
    """Return the platform's dashboard. ``runbooks``: where the pages of docs/runbooks can be read."""
    chosen = dashboard.QueryVariable("tenant").query(panels.TENANTS).datasource(_SOURCE).label("Tenants")
    chosen.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC).multi(True)
    chosen.include_all(True).all_value(".+").current(VariableOption(True, ["All"], ["$__all"]))
    made = _dashboard("wardkey: platform", "wardkey-platform").with_variable(chosen)
    _add(made.with_row(dashboard.Row("Platform")), panels.PLATFORM, panels.OF_PLATFORM, runbooks)
    _add(made.with_row(dashboard.Row("Tenants")), panels.TENANT, panels.CHOSEN, runbooks)
    return _text(made)


def tenant(slug: str, identifier: UUID, runbooks: str | None = None) -> str:
    """Return a tenant's dashboard, which says nothing of another's."""
    made = _dashboard(f"wardkey: {slug}", f"wardkey-{identifier.hex}")
    _add(made, panels.TENANT, panels.of_tenant(slug), runbooks)
    return _text(made)


def write(
    connection: psycopg.Connection[Any],
    directory: Path,
    source: str,
    tenant_source: str | None = None,
    listed: str | None = None,
    runbooks: str | None = None,
) -> Written:
    """Write ``directory``, and drop dashboards of tenants that are gone. Raises OSError, ServerError.

    ``source``: URL of the platform's Prometheus; ``tenant_source``: of a tenant's, with ``{tenant}`` for its
    slug. ``listed``: Grafana's organisations, see ``organisations``.
    """
    source, runbooks = url(source), runbooks and url(runbooks)
    orgs = organisations(listed) if listed is not None else {}
    if orgs and "{tenant}" not in (tenant_source or ""):
        raise ServerError(
            "all tenants would have one Prometheus, and read each other's numbers",
            "give --tenant-prometheus with {tenant} for the slug: http://prometheus-{tenant}:9090",
        )
    theirs_at = url(tenant_source or source)
    tenants = connection.execute(_TENANTS).fetchall()
    root = directory.absolute()
    own, theirs = root / "dashboards/platform", root / "dashboards/tenants"
    sources, providers = [_datasource(1, source)], [_provider(1, own)]
    _write(own / _NAME, platform(runbooks))
    for slug, identifier in tenants:
        _write(theirs / slug / _NAME, tenant(slug, identifier, runbooks))
        if slug in orgs:
            sources.append(_datasource(orgs[slug], theirs_at.replace("{tenant}", slug)))
            providers.append(_provider(orgs[slug], theirs / slug))
    for old in theirs.glob(f"*/{_NAME}"):
        if old.parent.name not in dict(tenants):
            old.unlink()
            with suppress(OSError):  # somebody else's files are in it
                old.parent.rmdir()
    provisioning = root / "provisioning"
    _write(provisioning / "datasources/wardkey.yaml", _yaml(prune=True, datasources=sources))
    _write(provisioning / "dashboards/wardkey.yaml", _yaml(providers=providers))
    slugs = [slug for slug, _ in tenants]
    return Written(root, slugs, [slug for slug in slugs if slug not in orgs])


def organisations(text: str) -> Mapping[str, int]:
    """Return the number of each organisation by its name, as Grafana's ``GET /api/orgs`` lists them.

    That of number 1 is the platform's own, whatever its name. Raises ServerError: it is no such list.
    """
    try:
        named = {str(one["name"]): int(one["id"]) for one in json.loads(text)}
        if len(set(named.values())) < len(named):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ServerError(
            "not a list of Grafana's organisations", "write what GET /api/orgs answers into it"
        ) from None
    return {name: number for name, number in named.items() if number > 1}


def _dashboard(title: str, uid: str) -> dashboard.Dashboard:
    made = dashboard.Dashboard(title).uid(uid).tags(["wardkey"]).readonly()
    return made.timezone("browser").time("now-6h", "now").refresh("1m")


def _add(made: dashboard.Dashboard, shown: Sequence[Panel], matcher: str, runbooks: str | None) -> None:
    for one in shown:
        panel = _stat() if one.is_stat else _course()
        text = f"{one.text} Runbook: {one.runbook}." if one.runbook else one.text
        panel.title(one.title).description(text).unit(one.unit).datasource(_SOURCE).span(_WIDTH).height(7)
        if runbooks and one.runbook:
            link = dashboard.DashboardLink(f"Runbook: {one.runbook}").type(DashboardLinkType.LINK)
            panel.links([link.url(f"{runbooks}/{one.runbook}").target_blank(True)])
        for letter, query in zip("ABCDEF", one.queries, strict=False):
            asked = prometheus.Dataquery().expr(query.of(matcher)).legend_format(query.legend)
            asked = asked.instant() if one.is_stat else asked.range()
            panel.with_target(asked.ref_id(letter).datasource(_SOURCE))
        made.with_panel(panel)


def _stat() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _course() -> timeseries.Panel:
    keys = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return timeseries.Panel().axis_soft_min(0).legend(keys.show_legend(True).calcs([]))


def _datasource(org: int, address: str) -> dict[str, Any]:
    return {
        "name": "wardkey", "uid": _SOURCE.uid, "type": "prometheus", "access": "proxy", "orgId": org,
        "url": address, "isDefault": True, "editable": False,
        "jsonData": {"timeInterval": "15s", "httpMethod": "POST"},
    }  # fmt: skip


def _provider(org: int, directory: Path) -> dict[str, Any]:
    return {
        "name": f"wardkey-{org}", "orgId": org, "type": "file", "disableDeletion": False,
        "allowUiUpdates": False, "options": {"path": str(directory)},
    }  # fmt: skip


def _text(made: dashboard.Dashboard) -> str:
    built = made.build()
    for number, panel in enumerate(built.panels or []):
        panel.id_val = number + 1
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _yaml(**content: Any) -> str:
    """Return JSON, which YAML reads; Grafana puts variables of its environment where a $ is."""
    return json.dumps({"apiVersion": 1, **content}, indent=1, ensure_ascii=False).replace("$", "$$") + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o644)
