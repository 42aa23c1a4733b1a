"""Django on a real database: one clone for a file, its tables made by the migrations of ``hospital``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import django
import pytest
from django.core.management import call_command
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from tests.support.database import TENANTS, Database, clone
from wardkey.django import base
from wardkey.embedded import Cluster

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")
django.setup()  # before a test's module is imported that has models


def aim(database: Database) -> None:
    """Let Django's aliases be of this database. Settings are the process's: there is one at a time."""
    tenants = {str(database.tenant_id(slug)): slug for slug in TENANTS}
    for alias, settings in connections.settings.items():
        user = "postgres" if alias in ("default", "owner") else "tenant_{tenant}"
        parts = conninfo_to_dict(database.dsn(user))
        settings.update(NAME=parts["dbname"], HOST=parts["host"], PORT=parts["port"])
        if "passfile" in parts:
            settings["OPTIONS"]["passfile"] = parts["passfile"]
            settings["OPTIONS"]["wards"]["tenants"] = tenants
        else:
            settings["USER"] = user


@pytest.fixture(scope="module")
def empty(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database with schema hospital and nothing in it."""
    with clone(cluster, template) as database:
        aim(database)
        with database.admin() as admin:
            admin.execute("create schema hospital")
        yield database
        connections.close_all()
        for key in list(base._wards):
            base._wards.pop(key).close()


@pytest.fixture(scope="module")
def site(empty: Database) -> Iterator[Database]:
    """The tables of all aliases."""
    call_command("migrate", "hospital", database="owner", verbosity=0)
    call_command("migrate", database="default", verbosity=0)
    yield empty
