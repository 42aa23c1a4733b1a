"""What a token says it is for is in the log with all that its login does, whatever a setting says."""

from __future__ import annotations

import pytest

from tests.scribe.scribes import Scribe, wait_for


@pytest.mark.parametrize(("claim", "stated"), [("treatment", "billing"), (None, "research"), (None, None)])
def test_a_purpose_is_that_of_the_token_or_a_stated_one(
    scribe: Scribe, claim: str | None, stated: str | None
) -> None:
    scribe.start()
    database = scribe.database
    with database.admin() as admin, database.tenant("acme") as connection:
        wait_for(admin, 1, "select count(*) from ward_internal.scribe_state")
        if stated:
            connection.execute("select set_config('ward.purpose', %s, false)", [stated])
        with connection.transaction():
            token = database.token("acme", subject="dr.grey", purpose=claim)
            connection.execute("select ward.login(%s)", [token])
            connection.execute("insert into patients (id, name) values (1, 'Ann')")
            connection.execute("select name from patients where id = 1")
        acts = (
            "select count(*) from ward_internal.audit_entries(%s, null, null)"
            " where subject = 'dr.grey' and purpose is not distinct from %s"
            " and operation in ('login', 'insert', 'read')"
        )
        wait_for(admin, 3, acts, database.tenant_id("acme"), claim or stated)
        query = "select detail ->> 'purpose' from ward_internal.audit_log where operation = 'login'"
        said = admin.execute(f"{query} and subject = 'dr.grey'").fetchone()
        assert said == (None if claim or not stated else "stated",)
