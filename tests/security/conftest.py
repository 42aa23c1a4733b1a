"""Two wards with something worth stealing. The attacker is acme's login role; the prize is globex's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.support.database import Connection, Database, clone
from tests.support.sqlstate import everything, refused
from wardkey.embedded import Cluster

SECRET = "999-77-4321"
"""What globex has sealed and nobody of acme may ever see."""


@dataclass(frozen=True)
class Wards:
    """A database with wards acme and globex, each with patients."""

    database: Database
    admin: Connection
    """A superuser, who weakens objects and looks behind faces."""

    def attacker(self, subject: str | None = "mallory", role: str = "ADMIN") -> Connection:
        """Connect as acme's login role: logged in for the session, or without token."""
        return self.database.tenant("acme", **({"subject": subject, "role": role} if subject else {}))

    def victim(self, subject: str = "victor") -> Connection:
        return self.database.tenant("globex", subject=subject)

    def token(self, slug: str = "acme", **claims: str) -> str:
        return self.database.token(slug, **claims)

    def sees(self, statement: str, subject: str | None = "mallory") -> bool:
        """Tell whether the attacker gets the victim's secret out of rows or error of ``statement``."""
        with self.attacker(subject) as connection:
            try:
                return SECRET in repr(connection.execute(statement).fetchall())
            except psycopg.Error as error:
                return SECRET in everything(error)

    def refuses(self, statement: str, *sqlstates: str, subject: str | None = "mallory") -> None:
        """Assert that the attacker's ``statement`` fails: for want of a privilege, if no other is given."""
        with self.attacker(subject) as connection, refused(*sqlstates):
            connection.execute(statement)


@pytest.fixture
def wards(database: Database) -> Iterator[Wards]:
    """Wards of this test's own, to be weakened."""
    with database.admin() as admin:
        yield _filled(Wards(database, admin))


@pytest.fixture(scope="module")
def calm(cluster: Cluster, template: str) -> Iterator[Wards]:
    """Wards for attacks that are refused and change nothing."""
    with clone(cluster, template) as database, database.admin() as admin:
        yield _filled(Wards(database, admin))


def _filled(wards: Wards) -> Wards:
    with wards.victim() as connection:
        connection.execute(
            "insert into patients (id, name, ssn, city) values (1, 'Bob Bravo', %s, 'Shelbyville'),"
            " (2, 'Bea', null, 'Ogden')",
            [SECRET],
        )
    with wards.attacker() as connection:
        connection.execute(
            "insert into patients (id, name, ssn) values (1, 'Ann Alpha', '999-11-1111'),"
            " (3, 'Al Able', '999-11-2222')"
        )
    return wards
