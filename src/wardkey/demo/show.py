"""The demo on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from .attacks import Outcome
from .cost import Cost
from .exercise import Exercise
from .glass import Step, Told
from .limits import Limits
from .payer import FEWEST, Summaries
from .roles import ROLES, Guess, Seen
from .story import Clinics
from .views import OnDisk, View

__all__ = ["Show"]

_MOST_CLINICS = 8
_MOST_CELL = 10


class Show:
    """Prints each part. ``progress`` is used for what takes time."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._part = 0

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        if not total:
            yield lambda count: None
            return
        for done in self._progress.task_ids:
            self._progress.remove_task(done)
        with self._progress as bars:
            task = bars.add_task(what, total=total)
            yield lambda count: bars.advance(task, count)

    def clinics(self, clinics: Clinics) -> None:
        self._heading(f"{len(clinics.counts)} clinics, each with a ward and a key of its own")
        table = _table("clinic", *next(iter(clinics.counts.values())))
        for slug, counts in list(clinics.counts.items())[:_MOST_CLINICS]:
            table.add_row(slug, *(f"{count:,}" for count in counts.values()))
        for column in table.columns[1:]:
            column.justify = "right"
        self._console.print(table)
        if len(clinics.counts) > _MOST_CLINICS:
            self._say(f"… and {len(clinics.counts) - _MOST_CLINICS} more")
        total = sum(sum(counts.values()) for counts in clinics.counts.values())
        self._say(f"{total:,} rows in all.")
        if clinics.created:
            each = clinics.provision_seconds / clinics.created * 1e3
            self._say(f"{clinics.created} clinics made now, {each:.0f} ms each.")
        if clinics.loaded_rows:
            each = clinics.load_seconds / clinics.loaded_rows * 1e6
            self._say(
                f"{clinics.loaded_rows:,} rows written now by COPY through the faces,"
                f" in {clinics.load_seconds:.1f} s, {each:.0f} µs each."
            )
        if clinics.created < len(clinics.counts):
            self._say(
                f"{len(clinics.counts) - clinics.created} clinics were there already and are as they were."
            )

    def views(self, query: str, views: list[View]) -> None:
        self._heading("One query, as each clinic")
        self._console.print(Text(query, style="cyan"))
        self._console.print()
        self._console.print(Columns([_view(view) for view in views], padding=(0, 3)))

    def roles(self, slug: str, seen: list[Seen], guess: Guess) -> None:
        self._heading(f"One patient of {slug}, as each role sees it")
        table = _table("column", "class", *ROLES)
        for one in seen:
            table.add_row(one.column, one.kind, *(_cut(one.shown[role]) for role in ROLES))
        self._console.print(table)
        self._say("WK232: the role has no key of that class, so no value is opened.")
        self._say("A mask is all that a query sees: an ANALYST looked for days of birth by")
        self._say(
            f"{', '.join(guess.tried)}: {guess.days * len(guess.tried)} queries, {guess.told} told one."
        )

    def glass(self, told: Told) -> None:
        self._heading("Break-glass: more than the role shows, on two tokens, for a while")
        self._console.print(_steps(told.steps))
        self._say("What stays, for the tenant and in its log:")
        self._below("\n".join(f"{name:<9} {value}" for name, value in told.trail.items()))

    def limits(self, limits: Limits) -> None:
        self._heading("Budgets and honey rows: so many rows, and one that nobody has to open")
        self._console.print(_steps(limits.steps))
        self._say(f"WK253: the role opens {limits.rows} patients a day; the keeper counts, over all")
        self._say("backends, and a rollback gives nothing back. WK255: the honey row is shown as")
        self._say("any other, and is an alarm in the platform's log. It ended the logins of")
        self._say(f"{', '.join(limits.ended) or 'nobody'}, until an operator lifts that.")

    def summaries(self, read: Summaries | None) -> None:
        self._heading("A payer reads sums of clinics, of no person and no small group")
        if read is None:
            self._say(f"Left out: a sum is of {FEWEST} clinics or more.")
            return
        table = _table("measure", "sex", "age", "clinics", "ill", "of", "percent")
        for one in read.totals:
            table.add_row(
                one.measure,
                one.sex,
                one.age,
                *map(str, (one.systems, one.numerator, one.members, one.percent)),
            )
        for column in table.columns[3:]:
            column.justify = "right"
        self._console.print(table)
        self._say(
            f"{read.payer}, {read.first_day} to {read.last_day}; each of {read.systems} clinics counted"
        )
        self._say("itself, on its own token. Groups of fewer than 11 ill or healthy are not shown:")
        self._say(f"of {read.cells} counts of single clinics the payer sees {read.shown}.")
        self._say(f"Proven just now: none of {read.hidden} hidden counts follows from what was ever shown.")

    def disk(self, disk: OnDisk) -> None:
        self._heading("The same rows as they lie on disk")
        table = _table("column", f"{disk.face}, with a token", f"{disk.leaf}, as superuser")
        for plain, stored in zip(disk.plain, disk.stored, strict=True):
            for name, value, bytes_ in zip(disk.columns, plain, stored, strict=True):
                table.add_row(name, value, _short(bytes_) if bytes_ != value else Text(bytes_, style="dim"))
            table.add_section()
        self._console.print(table)
        self._say(f"Searched the table's file, {disk.file_bytes:,} bytes, for this clinic's own values:")
        for name, (values, there) in disk.searched.items():
            self._say(f"  {name:<8} {there:>4} of {values:,} found")
        self._say(
            "mrn is not sealed, so that patients can be found by it: the search does find what is there."
        )

    def attacks(self, attacker: str, victim: str, outcomes: list[Outcome]) -> None:
        self._heading(f"{len(outcomes)} attacks: {attacker} wants to know about {victim}")
        for number, outcome in enumerate(outcomes, 1):
            verdict = Text("held", style="bold green") if outcome.held else Text("NOT HELD", style="bold red")
            self._console.print(Text(f"{number:>2}  {outcome.attack:<66} ").append_text(verdict))
            self._below(outcome.tried, "cyan")
            self._below(outcome.got)
        self._console.print()
        held = sum(outcome.held for outcome in outcomes)
        self._say(f"{held} of {len(outcomes)} held. Each verdict is drawn from what came back just now.")

    def exercise(self, counted: Exercise) -> None:
        self._heading(f"An exercise: a token of {counted.slug} leaks, a dump of it is stolen")
        table = _table("what was lost", "patients it reaches", "clinics and payers untouched", "its key")
        for what, patients in (("token", counted.by_token), ("dump", counted.by_dump)):
            verdicts = ", ".join(counted.verdicts[what])
            table.add_row(f"a {what}", str(patients), str(counted.untouched), verdicts)
        self._console.print(table)
        self._say("fails: the key was released on the token. holds: what is sealed in the dump stays so.")

    def costs(self, costs: list[Cost]) -> None:
        self._heading("What it costs, against plain tables, measured just now")
        table = _table("median of", "plain", "sealed", "more", "ratio")
        for one in costs:
            figures = (f"{value:.2f} {one.unit}" for value in (one.plain, one.sealed, one.more))
            table.add_row(one.what, *figures, f"{one.ratio:.1f}×")
        for column in table.columns[1:]:
            column.justify = "right"
        self._console.print(table)

    def onward(self, slug: str, options: str) -> None:
        """Say how to go on by hand. ``options``: global options the commands need, with a blank behind."""
        self._heading("Go on by hand")
        command = f"wardkey {options}"
        for line, why in (
            (f"{command}psql --tenant {slug} --subject me", "inside the ward, in plaintext"),
            (f"{command}psql", "as superuser: ciphertext"),
            (f"{command}token --tenant {slug} --subject me --role VIEWER", "a token for your own client"),
            (f"{command}doctor", "check every invariant"),
            (f"{command}down", "stop the server; the data stays"),
        ):
            self._console.print(Text.assemble("  ", (line, "cyan")), soft_wrap=True)
            self._below(why)

    def _heading(self, text: str) -> None:
        self._part += 1
        self._console.print()
        self._console.print(Text(f"{self._part}. {text}", style="bold"))
        self._console.print()

    def _below(self, text: str, style: str = "") -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, 6)))

    def _say(self, text: str) -> None:
        self._console.print(Text(text))


def _view(view: View) -> Table:
    table = _table(*view.columns)
    table.title = f"as {view.slug}"
    table.title_justify = "left"
    for row in view.rows:
        table.add_row(*row)
    return table


def _steps(steps: list[Step]) -> Table:
    table = _table("who", "does", "and gets")
    for step in steps:
        table.add_row(step.who, step.did, step.got)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CELL else f"{text[: _MOST_CELL - 1]}…"


def _short(hex_: str) -> str:
    return f"\\x{hex_[:40]}… ({len(hex_) // 2} bytes)"
