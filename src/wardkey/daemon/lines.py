"""What a service says on stderr: a line of text, or a JSON object, each with the stable name of its event.

JSON, one object a line: ``{"time": RFC 3339 in UTC, "level": "info", "warning" or "error", "service": name,
"event": one of EVENTS, "message": text}``. Programs go by ``event``; names stay, messages may change. No line
has a token, a key or a value of a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

__all__ = ["EVENTS", "Form", "Line", "Report", "reporter"]

Report = Callable[[str], None]
"""Is given a ``Line``."""

Form = Literal["text", "json"]

EVENTS: Final = {
    "ready": ("info", "it serves"),
    "at_work": ("info", "it has begun its work in a database"),
    "reloaded": ("info", "it was told to reload, and did"),
    "stopped": ("info", "it was told to stop, and did"),
    "cannot_work": ("error", "it ends, and why"),
    "internal_error": ("error", "a defect: the kind of the exception, and where"),
    "file_unusable": ("error", "issuers, policy or budgets are damaged or open to others: nobody is served"),
    "ledger_unwritable": (
        "error",
        "a ledger or counter cannot be written: what needs it is refused",
    ),
    "release_log_unwritable": ("error", "the release log cannot be written, so no key is released"),
    "status_unwritable": ("warning", "the file in which it tells how things are cannot be written"),
    "end_cut_off": ("warning", "a crash left a file's last line half written; it was acknowledged to nobody"),
    "no_connections": ("error", "no connection can be accepted for a while"),
    "kms_failed": ("error", "a KMS refused or did not answer"),
    "kms_unusable": ("error", "what kms.json says of a KMS cannot be used"),
    "kek_of_no_kms": ("warning", "a KEK is of no KMS that is configured"),
    "process_started": ("info", "the supervisor started a service"),
    "process_ended": ("warning", "a service ended, and how; it is started again"),
    "slot_made": ("info", "the scribe made its replication slot"),
    "reads_may_be_missing": ("warning", "reads of a time may be missing from the log, and why"),
    "sealing_failed": ("error", "entries cannot be sealed now; it tries again"),
    "disk_filling": ("warning", "the slot keeps so much WAL that the disk may fill"),
    "topic_made": ("info", "the publisher made a topic"),
    "topic_refilled": ("warning", "a topic was gone or had lost entries: it is filled again"),
    "entry_without_content": ("warning", "what an entry says is gone: its place in the topic is empty"),
    "kafka_failed": ("error", "Kafka refuses or acknowledges nothing; it tries again"),
    "invalidation_failed": ("error", "writes cannot be told to Redis now; it tries again"),
    "keys_not_renewed": ("warning", "the keys of an issuer cannot be fetched now"),
}
"""Name → level and meaning. docs/operations/logs.md has all of them."""


class Line(str):
    """A message with the name of its event."""

    event: str

    __slots__ = ("event",)

    def __new__(cls, event: str, text: str) -> Line:
        made = super().__new__(cls, text)
        made.event = event
        return made


def reporter(service: str, form: Form = "text") -> Report:
    """Return what writes the lines of a service to stderr."""

    def report(text: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = f"{at} {service}: {text}"
        if form == "json":
            event = text.event if isinstance(text, Line) else "internal_error"
            level = EVENTS[event][0]
            told = {"time": at, "level": level, "service": service, "event": event, "message": str(text)}
            line = json.dumps(told, ensure_ascii=False)
        print(line, file=sys.stderr, flush=True)

    return report
