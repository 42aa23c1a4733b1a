"""``wardkey tenant export``, ``shred`` and ``check-certificate``: how a tenant leaves."""

from __future__ import annotations

import base64
import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import click

from ..daemon.files import write_atomically
from ._context import Context, pass_context
from ._output import details, emit, fail, note, table, wrap

if TYPE_CHECKING:
    import psycopg

    from ..tenants.certificate import Certificate

MAX_CERTIFICATE = 4 * 1024 * 1024
_COLUMNS = ("table", "rows", "bytes", "file")


@click.command("export")
@click.argument("slug")
@click.option(
    "--to", "target", metavar="DIR", type=click.Path(path_type=Path), required=True, help="A new directory."
)
@click.option("--sealed", is_flag=True, help="As it is stored, with the wrapped keys; nothing is opened.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds a token of an ADMIN of the tenant (or WARDKEY_TOKEN); read again before each table.",
)
@pass_context
def export(context: Context, slug: str, target: Path, sealed: bool, token_file: Path | None) -> None:
    """Write a tenant's data into a new directory.

    Only you can read it.

    In the clear, as the tenant's ADMIN reads it: a CSV per table, the tables as they were declared, and a
    manifest. Without a token the embedded issuer signs one for you. DIR is there when all of it is.
    """
    from ..tenants.export import Source, export_clear, export_sealed

    # Whatever ends the command, nothing in the clear is to be left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with context.connect(autocommit=True) as admin:
        done = lambda name, rows: note(context, f"{name}: {rows:,} rows")  # noqa: E731
        source = Source(admin, slug, operator(), done)
        if sealed:
            tables = export_sealed(source, target)
        else:
            token = _token(context, admin, slug, token_file)
            tables = export_clear(source, lambda role: _connect_as(context, role), token, target)
    emit(context, {"directory": target, "tables": tables}, lambda: _show(target, tables))


@click.command("shred")
@click.argument("slug")
@click.option("--confirm", "code", metavar="CODE", help="The code that the first step printed.")
@click.option(
    "--certificate",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the certificate into FILE instead of printing it.",
)
@click.option(
    "--kms-gone",
    "gone",
    metavar="REASON",
    help="Its KMS is gone for good and need not answer; REASON is in the certificate.",
)
@pass_context
def shred(context: Context, slug: str, code: str | None, certificate: Path | None, gone: str | None) -> None:
    """Destroy a tenant's keys and its ward for good.

    First `wardkey tenant shred SLUG`: it changes nothing, and says what will go and the code that confirms
    it. Then the same with --confirm CODE: the certificate of destruction is printed. Whatever interrupts it,
    run it again; when all is done, it prints the certificate again.

    A KMS that does not answer, or refuses, keeps the tenant from being shredded. If it never will again, say
    so with --kms-gone: the certificate then says that the KEK may still exist.
    """
    from ..keys.kek import Keks
    from ..tenants import shredding

    if gone is not None and not gone.strip():
        raise click.UsageError("--kms-gone wants the reason, for the certificate")
    socket = context.keeper_socket
    with context.connect(autocommit=True) as connection:
        keks, say = Keks(context.home.orchestrator, socket), lambda text: note(context, text)
        outcome = shredding.proceed(connection, keks, socket, slug, code, operator(), say, gone=gone)
    if isinstance(outcome, dict):
        emit(context, outcome, lambda: _show_what_goes(outcome))
    else:
        _forget(context, outcome)
        _print_certificate(outcome, certificate)


def _print_certificate(proof: Certificate, file: Path | None) -> None:
    if file is not None:
        write_atomically(file, proof.to_bytes())
    else:
        click.echo(proof.to_bytes(), nl=False)


@click.command("check-certificate")
@click.argument("file", type=click.File("rb"))
@click.option("--public-key", metavar="KEY", help="In base64: whose signature it is to be.")
@pass_context
def check_certificate(context: Context, file: BinaryIO, public_key: str | None) -> None:
    """Check a certificate of destruction; needs no server.

    FILE must be as it was printed, to the byte. Without --public-key the signature is checked with the key
    that is in FILE: compare that with the keeper's own, which `wardkey keeper status` shows.
    """
    from ..tenants.certificate import BadCertificate, Certificate, fingerprint

    try:
        trusted = None if public_key is None else base64.b64decode(public_key, validate=True)
        proof = Certificate.parse(file.read(MAX_CERTIFICATE))
        proof.verify(trusted)
    except BadCertificate as error:
        fail(f"{file.name}: {error}", "ask for the certificate as it was printed")
    except ValueError:
        raise click.UsageError("--public-key is not base64") from None
    shown = base64.b64encode(proof.public_key).decode()
    facts = {**proof.statement, "public_key": shown, "signed_by_given_key": trusted is not None}
    emit(context, facts, lambda: _show_certificate(facts, fingerprint(proof.public_key)))


def operator() -> str:
    """Return who runs this command: the name of the OS user."""
    return pwd.getpwuid(os.getuid()).pw_name


def _token(
    context: Context, admin: psycopg.Connection[Any], slug: str, file: Path | None
) -> Callable[[], str]:
    from ..embedded.issuer import embedded_issuer
    from ..identity import issuers

    if file is not None:
        return lambda: file.read_text().strip()
    if given := os.environ.get("WARDKEY_TOKEN"):
        return lambda: given
    if not context.home.exists:
        fail("no token of the tenant", "give one: --token-file FILE, or WARDKEY_TOKEN")
    tenant = issuers.tenant_id(admin, slug)
    signer, _ = embedded_issuer(admin, context.home)
    return lambda: signer.sign_token(tenant, operator(), "ADMIN")


def _connect_as(context: Context, role: str) -> psycopg.Connection[tuple[Any, ...]]:
    from psycopg.conninfo import make_conninfo

    from ..daemon.sessions import connect

    if context.dsn is None:
        dsn = context.cluster.dsn(user=role)
    else:
        dsn = make_conninfo(context.dsn, user=role, password=None)
    return connect(dsn, "wardkey", autocommit=True)


def _forget(context: Context, proof: Certificate) -> None:
    """Forget the password of the login role, and the tenant's own KMS with its credentials."""
    if context.dsn is None:
        from ..tenants.provisioning import passfile_keeper

        passfile_keeper(context.home.pgpass)(proof.statement["ward"]["login_role"], None)
    if context.home.exists:
        from ..embedded import kms_choice

        kms_choice.forget(context.home, UUID(proof.statement["tenant"]["id"]))


def _show_what_goes(facts: dict[str, Any]) -> None:
    slug, begun = facts["slug"], facts["begun_at"]
    rows = sum(table["rows"] for table in facts["tables"])
    click.echo(
        wrap(f"Shredding {slug} ({facts['name']}, tenant {facts['tenant']}) destroys for good:") + "\n"
    )
    table(facts["tables"], ("table", "rows"), empty="no tables")
    table(facts["keys"], ("version", "state", "kek", "kek_version", "created_at"), empty="no keys")
    table(facts["keks"], ("version", "state", "created_at"), empty="no KEK that the KMS knows of")
    dropped = f"{rows:,} rows, schema {facts['schema']} and login role {facts['login_role']} are dropped"
    click.echo(
        wrap(
            f"{dropped}; its connections end. No backup of it can be read any more."
            " Its events and a certificate stay."
        )
    )
    for line in facts["remains"]:
        click.echo(wrap(f"But: {line}.", 5))
    click.echo(
        f"\nIt began at {begun}; continue with:" if begun else "\nNothing has been done yet. To do it:"
    )
    click.echo(f"  wardkey tenant shred {slug} --confirm {facts['code']}")
    if not begun:
        click.echo(f"To keep its data first: wardkey tenant export {slug} --to DIR")


def _show_certificate(facts: dict[str, Any], print_of_key: str) -> None:
    tenant = facts["tenant"]
    click.echo(f"intact: {facts['what']} of tenant {tenant['slug']} ({tenant['id']})")
    details(
        {
            "certified at": facts["certified_at"],
            "operator": facts["operator"],
            "rows": f"{sum(each['rows'] for each in facts['ward']['tables']):,}",
            "data keys": [each["version"] for each in facts["data_keys"]],
            "KEKs": [
                f"{each['kek'] or ''} {each['version']}: {each['state']}".strip() for each in facts["keks"]
            ],
            **({"KMS gone": facts["kms_gone"]["reason"]} if "kms_gone" in facts else {}),
            "remains": facts["remains"] or "nothing",
            "public key": facts["public_key"],
            "fingerprint": print_of_key,
        }
    )
    if not facts["signed_by_given_key"]:
        click.echo(
            "Whose key that is, it cannot say itself: compare it with the keeper's, or give --public-key."
        )


def _show(target: Path, tables: list[dict[str, Any]]) -> None:
    table(tables, _COLUMNS, empty="no tables")
    click.echo(f"{sum(facts['rows'] for facts in tables):,} rows in {target}")
