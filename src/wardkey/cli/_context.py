"""What every command is given: where the home is, which database is meant, how to print."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import psycopg

    from ..embedded import Cluster, Home

__all__ = ["Context", "accept_globals", "help_if_alone", "pass_context"]


@dataclass(slots=True)
class Context:
    """The global options. ``dsn`` is None when the embedded server is meant."""

    home_option: str | None = None
    dsn: str | None = None
    json: bool = False
    keeper: Path | None = None

    @classmethod
    def from_options(
        cls, home: str | None, dsn: str | None, as_json: bool, keeper: Path | None = None
    ) -> Context:
        return cls(home, dsn or os.environ.get("WARDKEY_DSN") or None, as_json, keeper)

    @property
    def again(self) -> str:
        """The words by which another command means the same home."""
        return f"--home {shlex.quote(self.home_option)} " if self.home_option else ""

    @property
    def home(self) -> Home:
        from ..embedded import Home

        return Home.locate(self.home_option)

    @property
    def cluster(self) -> Cluster:
        from ..embedded import Cluster

        return Cluster(self.home)

    @property
    def admin_dsn(self) -> str:
        """The DSN for administration: the one given, else the embedded server's (which must be running)."""
        return self.dsn or self.cluster.require_running().dsn()

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens: as --keeper says, else the embedded server or the database."""
        from ..keys.registry import keeper_socket

        if self.keeper is not None:
            return self.keeper
        if self.dsn is None:
            return self.home.keeper_socket
        with self.connect() as connection:
            return keeper_socket(connection)

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Connect for administration; commits at the end of the block, rolls back on an error."""
        from ..daemon.sessions import connect

        with connect(self.admin_dsn, "wardkey", autocommit=autocommit) as connection:
            yield connection


pass_context = click.make_pass_decorator(Context)


def accept_globals(command: click.Command) -> click.Command:
    """Let ``command`` and those below it take the global options too, and a group alone print its help."""
    taken = {option for parameter in command.params for option in parameter.opts}
    command.params += [option for option in _global_options() if not taken & set(option.opts)]
    if isinstance(command, click.Group):
        command.no_args_is_help, command.invoke_without_command = False, True
        command.callback = help_if_alone
        for child in command.commands.values():
            accept_globals(child)
    return command


def help_if_alone() -> None:
    """Print the help of a group that was named without a command."""
    group = click.get_current_context()
    if group.invoked_subcommand is None:
        click.echo(group.get_help())


def _global_options() -> list[click.Option]:
    def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.find_object(Context), str(parameter.name), value)

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=store, **settings)

    return [
        option("--home", "home_option", hidden=True),
        option("--dsn", "dsn", hidden=True),
        option("--keeper", "keeper", type=click.Path(path_type=Path), hidden=True),
        option("--json", "json", is_flag=True, help="Print facts as JSON."),
    ]
