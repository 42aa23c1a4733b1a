"""The journal as the scribe gets it: a logical slot of one test's database, decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from wardkey_core import journal
from wardkey_core.journal_reader import Counts, Event, Query, Read, decode

from tests.support.database import Connection, Database
from wardkey.scribe.pgoutput import Decoder, Message


class Journal:
    """``read`` returns what came since it was last called. Nothing here makes the server flush its WAL."""

    def __init__(self, admin: Connection, slot: str) -> None:
        self._admin = admin
        self._slot = slot
        self._decoder = Decoder()

    def messages(self) -> list[Message]:
        rows = self._admin.execute(
            "select data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1',"
            " 'publication_names', 'journal_test', 'messages', 'true')",
            [self._slot],
        ).fetchall()
        events = [self._decoder.decode(bytes(row[0])) for row in rows]
        return [event for event in events if isinstance(event, Message)]

    def read(
        self, until: Callable[[list[Read | Query | Event]], bool] = bool, patience: float = 60
    ) -> list[Read | Query | Event]:
        """Return messages once ``until`` holds for them, or what there is when patience ends."""
        messages: list[Read | Query | Event] = []
        deadline = time.monotonic() + patience
        while True:
            for message in self.messages():
                assert message.prefix == journal.PREFIX and not message.transactional
                decoded = decode(message.content)
                if isinstance(decoded, list):
                    messages += decoded
                elif not isinstance(decoded, Counts):
                    messages.append(decoded)
            if until(messages) or time.monotonic() > deadline:
                return messages
            time.sleep(0.05)

    def reads(self, rows: int = 1, patience: float = 60) -> dict[str | None, set[str]]:
        """Return by row which columns were read, once there are ``rows`` of them."""
        messages = self.read(lambda all_of_it: len(by_row(all_of_it)) >= rows, patience)
        return by_row(messages)

    def events(self, operation: str, patience: float = 60) -> list[Event]:
        """Return the events of one kind, once there is one."""

        def of_kind(messages: list[Read | Query | Event]) -> list[Event]:
            return [one for one in messages if isinstance(one, Event) and one.operation == operation]

        return of_kind(self.read(lambda messages: bool(of_kind(messages)), patience))


def by_row(messages: Sequence[Read | Query | Event]) -> dict[str | None, set[str]]:
    """Merge messages as the scribe does."""
    rows: dict[str | None, set[str]] = {}
    for one in messages:
        if isinstance(one, Read):
            rows.setdefault(one.row, set()).update(one.columns.split(","))
    return rows


@contextmanager
def journal_of(database: Database) -> Iterator[Journal]:
    """Make a slot that sees what is journalled from now on, and drop it afterwards."""
    slot = f"journal_{database.name}"
    with database.admin() as admin:
        admin.execute("create publication journal_test for table ward_internal.audit_log")
        admin.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        try:
            yield Journal(admin, slot)
        finally:
            admin.execute("select pg_drop_replication_slot(%s)", [slot])
            admin.execute("drop publication journal_test")
