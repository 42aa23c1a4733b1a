"""What a security officer looks at and signs each quarter: who had which access, used it or not.

45 CFR 164.308(a)(4) and 164.312(b). Each section is one question to the audit log or to what stands now; a
section more is an entry more of ``SECTIONS``. No value of a table and no row's id is in any answer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from wardkey_core.log.exporter import Period

__all__ = ["SECTIONS", "Review", "Section", "gather", "render"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Section:
    """``query`` takes tenant, begin and end; its columns are those of the table."""

    name: str
    title: str
    about: str
    empty: str
    query: str
    is_decided: bool = False  # the officer says of each line whether it stays


_ENTRIES = """
with entries as (select * from ward_internal.audit_entries(%(tenant)s, %(begin)s, %(end)s)),
rows_read as (
  select e.subject, e.role, e.purpose, e.table_name, r.id
    from entries as e, ward_internal.rows_of(e.row_id, e.detail) as r (id) where e.operation = 'read'
)"""

SECTIONS = (
    Section(
        "people",
        "Who had which role",
        "Subjects of tokens. Roles are given by the issuers of tokens: what goes is to be taken away there.",
        "Nobody logged in.",
        """
        select e.subject as who, e.role, count(distinct e.context) as logins, min(e.at) as first,
               max(e.at) as last, coalesce(min(r.number), 0) as rows_read,
               count(*) filter (where e.kind = 'write') as rows_written
          from entries as e
          left join (select subject, role, count(distinct (table_name, id)) as number
                       from rows_read group by 1, 2) as r using (subject, role)
         where e.subject is not null group by 1, 2 order by 1, 2""",
        is_decided=True,
    ),
    Section(
        "reads",
        "What each read",
        "Different rows of which sealed columns were opened. Transactions that queried a table are counted,"
        " too: what they saw of columns that are not sealed is not told by row.",
        "Nothing was read.",
        """
        select e.subject as who, e.role, e.table_name as table, coalesce(min(r.number), 0) as rows_read,
               count(distinct e.id) filter (where e.operation = 'query') as queries,
               string_agg(distinct s.class, ', ') as classes, string_agg(distinct c.name, ', ') as columns,
               max(e.at) as last
          from entries as e
          left join unnest(e.columns) as c (name) on true
          left join ward_internal.models as m on m.face = e.table_name
          left join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = c.name
          left join (select subject, role, table_name, count(distinct id) as number
                       from rows_read group by 1, 2, 3) as r using (subject, role, table_name)
         where e.kind = 'read' group by 1, 2, 3 order by 1, 2, 3""",
    ),
    Section(
        "unused",
        "Access that nobody used",
        "Classes of columns that the policy lets a role see or write, and nobody with that role did.",
        "Every role used all that the policy gives.",
        """
        select p.role, string_agg(p.class, ', ' order by class) filter (where p.kind = 'read') as never_read,
               string_agg(p.class, ', ' order by class) filter (where p.kind = 'write') as never_written
          from (select a.role, a.class, k.kind
                  from ward_internal.tenant_access as a, (values ('read'), ('write')) as k (kind)
                 where a.tenant_id = %(tenant)s
                   and case k.kind when 'read' then a.access <> 'none' else a.writes end
                   and a.class in (select class from ward_internal.sealed_columns)
                except
                select e.role, s.class, e.kind
                  from entries as e join ward_internal.models as m on m.face = e.table_name
                  join ward_internal.sealed_columns as s on s.model_id = m.id
                 where s.name = any (e.columns) or e.kind = 'write' and e.columns is null) as p
         group by 1 order by 1""",
    ),
    Section(
        "break_glass",
        "Break-glass",
        "Who saw more than the role shows, why, who approved it (nobody, where the tenant's policy lets care"
        " go on without), and how many different rows were read meanwhile.",
        "Nobody asked for it.",
        """
        select b.subject as who, b.role, array_to_string(b.classes, ', ') as classes, b.reason, b.state,
               b.approver, b.started_at as started, coalesce(b.closed_at, b.until) as ended,
               (select count(distinct (r.table_name, r.id)) from rows_read as r
                 where r.purpose = 'ETREAT ' || b.id) as rows_read,
               b.reviewer, b.finding, b.review_due
          from ward.break_glass_grants as b
         where b.tenant_id = %(tenant)s and b.requested_at >= %(begin)s
           and (%(end)s::timestamptz is null or b.requested_at < %(end)s)
         order by b.requested_at""",
        is_decided=True,
    ),
    Section(
        "budgets",
        "Budgets near their end",
        "Who opened more than 80 % of the rows that a budget allows in a window, or all of them and wanted"
        " more.",
        "Nobody came near the end of a budget.",
        """
        select e.subject as who, e.role, coalesce(m.face, e.detail ->> 'model') as table,
               max((e.detail ->> 'budget')::bigint) as budget,
               count(*) filter (where e.operation = 'budget_near') as times_near,
               count(*) filter (where e.operation = 'budget_exhausted') as times_used_up, max(e.at) as last
          from entries as e left join ward_internal.models as m on m.id::text = e.detail ->> 'model'
         where e.operation in ('budget_near', 'budget_exhausted')
         group by 1, 2, 3 order by 6 desc, 5 desc, 1, 2, 3""",
        is_decided=True,
    ),
    Section(
        "delegations",
        "Delegations to payers",
        "Who may read counts of this tenant, and when that was last done. One that nobody reads may go.",
        "Nothing is delegated.",
        """
        select t.slug as payer, string_agg(d.measure, ', ' order by d.measure) as measures,
               min(d.delegated_at) as since, string_agg(distinct d.delegated_by, ', ') as delegated_by,
               (select max(e.at) from entries as e
                 where e.operation = 'measures_read' and e.detail ->> 'payer' = t.slug) as last_read
          from ward_internal.delegations as d join ward_internal.tenants as t on t.id = d.payer_id
         where d.system_id = %(tenant)s group by t.slug order by t.slug""",
        is_decided=True,
    ),
    Section(
        "changes",
        "Changes of access",
        "What was granted in the database beyond what wardkey does itself, and what became of policy, row"
        " rules, classes and delegations.",
        "None in this time.",
        """
        select e.at as when, replace(e.operation, '_', ' ') as what,
               coalesce(e.subject, e.database_role) as who,
               (select string_agg(d.key || ' ' || (d.value #>> '{}'), ', ')
                  from jsonb_each(e.detail) as d) as detail
          from entries as e
         where e.operation in ('grant', 'revoke', 'policy_narrowed', 'policy_restored', 'row_rule_added',
             'row_rule_dropped', 'budget_set', 'budget_dropped', 'classified', 'mask_set', 'delegated',
             'delegation_revoked')
         order by e.at, e.id""",
        is_decided=True,
    ),
    Section(
        "refusals",
        "Refusals",
        "A refusal has no name: the token could not be trusted.",
        "None in this time.",
        """
        select e.database_role, e.detail ->> 'sqlstate' as sqlstate, e.detail ->> 'reason' as reason,
               sum(coalesce((e.detail ->> 'count')::bigint, 1))::bigint as times, max(e.at) as last
          from entries as e where e.operation = 'refusal' group by 1, 2, 3 order by 4 desc, 1, 2""",
    ),
)


@dataclass(slots=True)
class Review:
    """``answers``: of each section, by its name. ``verified``: see ``wardkey audit verify``."""

    slug: str
    tenant: UUID
    begin: datetime
    end: datetime
    made: datetime
    answers: dict[str, Rows]
    verified: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        head = {"slug": self.slug, "tenant": self.tenant, "from": self.begin, "to": self.end}
        return {**head, "log_is_good": self.verified["ok"], **self.answers}


def gather(connection: psycopg.Connection[Any], tenant: UUID, slug: str, period: Period) -> Review:
    """Ask the database. ``connection``: in a transaction, repeatable read; ``period`` begins somewhere."""
    assert period.begin is not None  # noqa: S101
    made = datetime.now(UTC)
    asked = {"tenant": tenant, "begin": period.begin, "end": period.end}
    with connection.cursor(row_factory=dict_row) as cursor:
        answers = {one.name: cursor.execute(_ENTRIES + one.query, asked).fetchall() for one in SECTIONS}
    return Review(slug, tenant, period.begin, period.end or made, made, answers)


def render(review: Review) -> str:
    """Return the page, to be printed and signed. It loads nothing and runs nothing; values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from .. import audit

    folders = [Path(__file__).parent, Path(audit.__file__).parent]
    pages = Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined)
    style = "".join((folder / name).read_text() for folder, name in zip(folders, _STYLES, strict=True))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    sections = [(one, *_table(one, review.answers[one.name])) for one in SECTIONS]
    return pages.get_template("review.html").render(
        review=review, sections=sections, style=style, policy=policy, time=_text
    )


_STYLES = ("review.css", "page.css")


def _table(section: Section, rows: Rows) -> tuple[Sequence[str], list[list[str]]]:
    heads = [name.replace("_", " ") for name in rows[0]] if rows else []
    return heads, [[_text(value) for value in row.values()] for row in rows]


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
