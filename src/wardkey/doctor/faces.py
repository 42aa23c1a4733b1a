"""Faces are the views that wardkey makes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from ._check import Check, Problem, Server, prelude

__all__ = ["CHECKS"]

# Faces of one model differ in their schema only: each is compared with one that is made now and rolled back.
_ALTERED = """,
made as (
  select pg_get_viewdef(oid) as text from pg_class
  where relname = 'wardkey_face' and relnamespace = pg_my_temp_schema()
)
select ward.oid::regclass::text, ward.slug from ward, made
where ward.model_id = %s and replace(pg_get_viewdef(ward.oid), quote_ident(ward.schema_name) || '.', '@.')
  <> replace(made.text, quote_ident(%s) || '.', '@.')
order by 1"""


def _altered(server: Server) -> Iterator[Problem]:
    schema = server.value(
        "select schema_name from ward_internal.tenants where status <> 'shredded' order by created_at limit 1"
    )
    models = server.rows("select id from ward_internal.models order by id") if schema else []
    for (model,) in models:
        with server.connection.transaction(force_rollback=True):
            query = server.value("select ward_internal.face_query(%s, %s)", model, schema)
            try:
                with server.connection.transaction():
                    server.connection.execute(f"create temporary view wardkey_face as {query}")
            except psycopg.ProgrammingError:
                continue  # without its leaf, which another check misses
            rows = server.rows(prelude().replace("%", "%%") + _ALTERED, model, schema)
        for face, slug in rows:
            yield Problem(face, "is not the view that wardkey makes", f"select ward.repair_tenant('{slug}');")


CHECKS = (Check("faces-unchanged", "every face is the view that wardkey makes", _altered),)
