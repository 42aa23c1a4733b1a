"""Everything the commands print: tables and progress for people, JSON for programs, errors for both.

Facts go to stdout, everything else to stderr. An error is two lines, ``error: …`` and, where something
fixes it, ``hint: …``; with ``--json`` an object with the members ``error``, ``sqlstate`` and ``hint``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import click

from ._context import Context
from ._hints import in_commands

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "CliError",
    "console",
    "details",
    "emit",
    "fail",
    "moment",
    "note",
    "progress",
    "run_guarded",
    "table",
    "wrap",
]

_PROSE = frozenset(
    [
        "columns",
        "detail",
        "due",
        "explanation",
        "ids",
        "matter",
        "old_versions",
        "reason",
        "row_ids",
        "sealed",
        "trouble",
        "why_not_more",
    ]
)
"""Columns of words, or of lists, that may go on in a further line."""
_NARROWEST = 24

FAILED, USAGE, UNREACHABLE, FINDINGS, INTERRUPTED = 1, 2, 3, 4, 130


class CliError(click.ClickException):
    """An error that a command found itself."""

    def __init__(self, message: str, hint: str | None = None, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = exit_code


def fail(message: str, hint: str | None = None, exit_code: int = FAILED) -> NoReturn:
    """End the command with an error."""
    raise CliError(message, hint, exit_code)


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that does not guess at markup or numbers in what we print."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 80
    return Console(stderr=stderr, highlight=False, markup=False, width=width)


def note(context: Context, text: str) -> None:
    """Tell a person how things go; programs (``--json``) are not told."""
    if not context.json:
        click.echo(text, err=True)


def emit(context: Context, facts: Any, render: Callable[[], None]) -> None:
    """Print ``facts`` as JSON when asked to, else call ``render`` for a person."""
    if context.json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False, default=_plain))
    else:
        render()


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str = "none") -> None:
    """Print ``rows`` as a table of ``columns``; headings are the names with blanks for underscores.

    A row is a line, and names are not broken. On a terminal too narrow for it, columns of prose are wrapped
    between words; where that does not suffice, each row is a block with a line a column.
    """
    if not rows:
        click.echo(empty)
        return
    lines = [[name.replace("_", " ") for name in columns]]
    lines += [[_cell(row.get(name)) for name in columns] for row in rows]
    shown = list(_aligned(lines, [name in _PROSE for name in columns]))
    if max(map(_width, shown)) > _room():
        blocks = [[*_block(lines[0], line)] for line in lines[1:]]
        shown = [line for block in blocks for line in ("", *block)][1:]
    click.echo("\n".join(shown))


def _width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def _room(*, stderr: bool = False) -> int:
    """Return how many columns the terminal has; what is no terminal has any number."""
    stream = sys.stderr if stderr else sys.stdout
    return shutil.get_terminal_size().columns if stream.isatty() else sys.maxsize


def _block(names: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    width = max(map(len, names)) + 2
    for name, cell in zip(names, cells, strict=True):
        yield wrap(f"{name:<{width}}{cell}", width)


def wrap(text: str, indent: int = 0, *, stderr: bool = False) -> str:
    """Break ``text`` between words where the terminal ends; further lines begin with so many blanks."""
    room = _room(stderr=stderr)
    if len(text) <= room:
        return text
    lead, rest = text[:indent], text[indent:]
    lines = textwrap.wrap(
        rest, max(room - indent, _NARROWEST), break_long_words=False, break_on_hyphens=False
    )
    return lead + ("\n" + " " * indent).join(lines)


def _aligned(lines: list[list[str]], prose: Sequence[bool]) -> Iterator[str]:
    """Yield the lines of a table below its heading, without blanks at their ends."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    room = _room() - sum(width + 2 for width, wrapped in zip(widths, prose, strict=True) if not wrapped)
    share = max(room // max(sum(prose), 1) - 2, _NARROWEST)
    widths = [min(width, share) if wrapped else width for width, wrapped in zip(widths, prose, strict=True)]
    for number, line in enumerate(lines):
        parts = [
            textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) if wrapped else [cell]
            for cell, width, wrapped in zip(line, widths, prose, strict=True)
        ]
        for cells in zip_longest(*parts, fillvalue=""):
            filled = (
                cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)
            )
            yield "  ".join(filled).rstrip()
        if number == 0:
            yield "  ".join("─" * width for width in widths)


def moment(value: datetime) -> str:
    """Return a time as commands show it to a person: in UTC, and saying so."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def details(facts: Mapping[str, Any]) -> None:
    """Print one thing's facts, a line each."""
    width = max(map(len, facts), default=0) + 2
    for name, value in facts.items():
        click.echo(wrap(f"{name.replace('_', ' '):<{width}}{_cell(value)}", width))


def progress(context: Context) -> Progress:
    """Return a progress display on stderr, silent with ``--json`` or when nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
        disable=context.json or not sys.stderr.isatty(),
    )


def run_guarded(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run ``command`` and turn every way it can end into an exit code and at most two lines on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words[: words.index("--")] if "--" in words else "--json" in words
    try:
        result = command.main(words, prog_name="wardkey", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _report(as_json, INTERRUPTED, "interrupted")
    except click.UsageError as error:
        hint = f"see: {error.ctx.command_path} --help" if error.ctx else None
        return _report(as_json, USAGE, error.format_message(), hint)
    except CliError as error:
        return _report(as_json, error.code, error.message, error.hint)
    except click.ClickException as error:
        return _report(as_json, error.exit_code, error.format_message())
    except BrokenPipeError:
        # The reader left (`wardkey logs | head`): not an error, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(as_json, *_explain(error))


def _explain(error: Exception) -> tuple[int, str, str | None, str | None]:
    """Return exit code, message, hint and SQLSTATE of an exception from below the commands."""
    from ..errors import ServerError, WardError, from_psycopg

    if type(error).__module__.startswith("psycopg"):
        error = from_psycopg(error)
    if isinstance(error, WardError):
        code = error.exit_code if isinstance(error, ServerError) else FAILED
        return code, error.message, error.hint and in_commands(error.hint), error.sqlstate
    if (own := getattr(error, "exit_code", None)) is not None:  # what a file or a log is found to be
        return own, str(error), getattr(error, "hint", None), None
    if isinstance(error, PermissionError):
        return FAILED, f"no permission: {error.filename}", "run it as the user who owns the home", None
    if isinstance(error, OSError) and error.strerror:
        return FAILED, ": ".join(filter(None, (error.strerror.lower(), _text(error.filename)))), None, None
    return FAILED, f"unexpected {type(error).__name__} at {_where(error)}", "this is a bug in wardkey", None


def _where(error: Exception) -> str:
    # Module and line only: the text of an unforeseen exception may carry values.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _report(
    as_json: bool, code: int, message: str, hint: str | None = None, sqlstate: str | None = None
) -> int:
    if as_json:
        click.echo(json.dumps({"error": message, "sqlstate": sqlstate, "hint": hint}), err=True)
    else:
        text = f"error: {message}" + (f" ({sqlstate})" if sqlstate else "")
        click.echo(wrap(text, 7, stderr=True), err=True)
        if hint:
            click.echo(wrap(f" hint: {hint}", 7, stderr=True), err=True)
    return code


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID | Path | date):
        return str(value)
    raise TypeError(f"not a fact: {type(value).__name__}")
