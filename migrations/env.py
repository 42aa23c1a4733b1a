"""Alembic's environment. ``wardkey.install.migrations`` gives the connection and ends the transaction."""

from alembic import context

import wardkey.alembic  # noqa: F401 - adds op.protect_table and the others

# No tenant may use this schema. It is not the extension's own, whose objects come and go with the extension.
VERSION_SCHEMA = "ward_migrations"


def run() -> None:
    connection = context.config.attributes["connection"]
    connection.exec_driver_sql(f"create schema if not exists {VERSION_SCHEMA}")
    context.configure(connection=connection, version_table_schema=VERSION_SCHEMA)
    context.run_migrations()


run()
