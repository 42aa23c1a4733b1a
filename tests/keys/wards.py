"""A ward whose rows must outlive whatever is done to its keys."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from tests.support.database import Connection, Database
from wardkey.keys import run
from wardkey.keys.run import Outcome, Throttle

_FILL = """
insert into patients (name, ssn, birth_date, city)
  select 'Patient ' || n, case when n %% 7 > 0 then '999-' || n end, date '1950-01-01' + n %% 9999, 'Ogden'
  from generate_series(1, %s) as n"""


@dataclass
class Ward:
    """A tenant and what it has written: ``rows`` is what its face must show."""

    database: Database
    slug: str
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def fill(self, count: int) -> Ward:
        with self.tenant() as connection:
            connection.execute(_FILL, [count])
        self.rows = self.read()
        return self

    def tenant(self) -> Connection:
        return self.database.tenant(self.slug, subject="dr.grey", role="ADMIN")

    def read(self) -> list[tuple[Any, ...]]:
        with self.tenant() as connection:
            return connection.execute(
                "select id, name, ssn, birth_date, city from patients order by id"
            ).fetchall()

    def query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run ``query`` as superuser; ``{slug}`` is the tenant's."""
        with self.database.admin() as connection:
            return connection.execute(query.format(slug=self.slug), values or None).fetchall()

    def rotate(self, *, incident: bool = False) -> int:
        (row,) = self.query("select ward.rotate_key(%s, 'test', null, %s)", self.slug, incident)
        version: int = row[0]
        return version

    def reseal(self, patience: float = 5, **options: Any) -> Outcome:
        with self.database.admin() as connection:
            return run.reseal(
                connection, self.slug, Throttle(share=1.0), threading.Event(), patience=patience, **options
            )

    def states(self) -> dict[int, str]:
        return dict(self.query("select version, state from ward.keys where slug = '{slug}' order by version"))

    def counts(self) -> dict[int, int]:
        """Return how many values are under each version."""
        return dict(
            self.query(
                "select version::integer, sum(fields)::integer from ward.key_rows('{slug}') group by version"
            )
        )

    def fields(self) -> int:
        return sum(value is not None for row in self.rows for value in row[1:4])

    def is_whole(self) -> bool:
        """Whether all rows read as they were written, all of them under the active version."""
        (active,) = [version for version, state in self.states().items() if state == "active"]
        return self.read() == self.rows and self.counts() == {active: self.fields()}

    def events(self, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
        rows = self.query(
            "select kind, detail from ward.events where slug = '{slug}' and kind = any (%s) order by id",
            list(kinds),
        )
        return [(kind, detail) for kind, detail in rows]


def make_ward(database: Database, rows: int = 0) -> Ward:
    ward = Ward(database, database.new_tenant())
    return ward.fill(rows) if rows else ward
