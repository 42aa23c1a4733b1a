"""The ``wardkey`` command: one module per noun, imported when its command runs.

Exit codes: 0 done · 1 failed or refused · 2 wrong usage · 3 not running or unreachable ·
4 doctor or lint found something · 130 interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

import click
from wardkey_pg import __version__

from ._context import Context, accept_globals, help_if_alone

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Embedded server": {
        "up": ("server", "Start the private PostgreSQL, the keeper and the scribe, made first if missing."),
        "down": ("server", "Stop PostgreSQL and all that runs beside it; the data stays."),
        "upgrade": ("upgrade", "Move the data to a newer PostgreSQL that is installed."),
        "backup": ("backup", "Back up database, keeper and orchestrator into a new DIRECTORY."),
        "restore": ("backup", "Make an embedded server out of a backup, start it, and open every tenant."),
        "status": ("server", "Say what runs, where, and for how long."),
        "logs": ("server", "Show the logs of PostgreSQL and of all that runs beside it."),
        "psql": ("server", "Open psql, as superuser or inside a tenant's ward."),
        "keeper": ("keeper", "Ask the keeper, the process that releases keys."),
        "scribe": ("scribe", "Run and ask the scribe, the process that seals the audit log."),
        "kafka": ("kafka", "Publish the audit log to Kafka, a topic per tenant."),
        "cache": ("cache", "Let clients cache in Redis, sealed, a user per tenant."),
        "kms": ("kms", "Choose, show and check the KMS of the embedded server."),
        "metrics": ("metrics", "Serve numbers to Prometheus, of each tenant and the platform."),
        "dashboard": ("dashboard", "Show the numbers, in Grafana or as one page."),
    },
    "Database": {
        "install": ("install", "Check and prepare a PostgreSQL server of your own."),
        "service": ("service", "Run the processes of a server of your own under systemd."),
        "migrate": ("migrate", "Bring extension and reference clinic model up to date."),
        "doctor": ("doctor", "Check a live server against every invariant; changes nothing in it."),
        "tenant": ("tenant", "Create, list, suspend, resume, restore, export, shred and drop tenants."),
        "keys": ("keys", "List, rotate, rewrap, retire and destroy the keys of tenants."),
        "audit": (
            "audit",
            "Export, verify, prove, compare and prune the audit log, and answer questions to it.",
        ),
        "access": (
            "access",
            "Say who may see what: classes, policy, row rules, budgets, break-glass, measures.",
        ),
        "incident": ("incident", "Count whom a loss reaches; assess, report and close an incident."),
        "baa": ("baa", "Record, list, show and end business associate agreements."),
        "search": ("search", "Say how sealed columns are searched."),
        "table": ("table", "Protect tables, share reference tables, list them."),
    },
    "Code": {
        "lint": ("lint", "Check SQL, migrations and SQL in Python against the rules of wardkey, offline."),
    },
    "Identity": {
        "issuer": ("issuer", "Add, refresh, list and remove the issuers of tokens."),
        "token": ("token", "Sign a token with the embedded issuer."),
        "gateway": ("gateway", "Verify tokens before an application, for nginx and Envoy."),
    },
    "Getting started": {
        "demo": ("demo", "Clinics, patients, attacks and costs, shown on the embedded server."),
        "completion": ("completion", "Print the completion script for your shell."),
    },
}
"""Heading → command → (module below wardkey.cli that defines it under the same name, one line of help)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the module of the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if name in section:
                module = import_module(f"{__name__}.{section[name][0]}")
                command: click.Command = getattr(module, name)
                return accept_globals(command)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, section in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl(_help_lines(section.items()))


def _help_lines(section: Iterable[tuple[str, tuple[str, str]]]) -> list[tuple[str, str]]:
    return [(name, text) for name, (_, text) in section]


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--home", metavar="DIR", help="State directory of the embedded server (or WARDKEY_HOME).")
@click.option("--dsn", metavar="DSN", help="Another server, as superuser or owner (or WARDKEY_DSN).")
@click.option("--keeper", metavar="SOCKET", help="Its keeper's socket (default: as the database says).")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, home: str | None, dsn: str | None, keeper: str | None, as_json: bool) -> None:
    """Every tenant its own ward, every ward its own key, inside PostgreSQL.

    Start with `wardkey up`, or see everything at work with `wardkey demo`.
    """
    ctx.color = False if os.environ.get("NO_COLOR") else None
    ctx.obj = Context.from_options(home, dsn, as_json, Path(keeper) if keeper else None)
    help_if_alone()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Prints errors, never a traceback."""
    from ._output import run_guarded

    return run_guarded(cli, arguments)
