"""``wardkey issuer``: whose tokens are believed, in the database and in the keeper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._context import Context, pass_context
from ._output import emit, fail, note, table
from ._places import keeper_directory, only, places

if TYPE_CHECKING:
    from ..identity.issuers import Refreshed

T = TypeVar("T")


@click.group()
def issuer() -> None:
    """Add, refresh, list and remove the issuers of tokens."""


@issuer.command("add")
@click.option("--issuer", "name", metavar="ISS", required=True, help="The iss claim of its tokens.")
@click.option("--audience", metavar="AUD", required=True, help="The aud claim its tokens must have.")
@click.option("--jwks", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--jwks-url", metavar="URL", help="https; fetched now, by this command.")
@click.option("--claim-tenant", metavar="NAME", help="Claim with the tenant's id (default tenant_id).")
@click.option("--claim-role", metavar="NAME", help="Claim with the role (default role).")
@click.option("--claim-subject", metavar="NAME", help="Claim with the subject (default sub).")
@click.option(
    "--max-lifetime", metavar="SECONDS", type=click.IntRange(1, 86400), help="Of a token (default 900)."
)
@click.option(
    "--settings",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON: claims, roles, tenants, require, other_audiences, max_lifetime, max_skew.",
)
@keeper_directory
@only
@pass_context
def add(
    context: Context, /, jwks: Path | None, jwks_url: str | None, only: str | None, **options: Any
) -> None:
    """Trust an issuer's tokens, or replace what is known of it.

    Its public keys come from a JWKS, a file or a URL. When it changes its keys: wardkey issuer refresh.
    With --settings its tokens may call tenants, roles and claims by other names.
    """
    from ..identity import issuers

    document, notes = _document(jwks, jwks_url, options)
    for line in notes:
        note(context, line)
    with places(context, options["keeper_directory"], only) as (connection, keeper):
        issuers.register(connection, keeper, document)
    kids = [key["kid"] for key in document["keys"]]
    emit(
        context, document, lambda: click.echo(f"{document['issuer']}: {len(kids)} key(s): {', '.join(kids)}")
    )


@issuer.command("refresh")
@click.argument("name", metavar="ISS")
@click.option("--jwks", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--jwks-url", metavar="URL", help="https; fetched now, by this command.")
@keeper_directory
@only
@pass_context
def refresh(context: Context, /, name: str, jwks: Path | None, jwks_url: str | None, **where: Any) -> None:
    """Take an issuer's keys from its JWKS as it is now.

    What it no longer publishes is believed no more. Nothing else that is known of the issuer changes, and
    nothing at all where the JWKS cannot be fetched or has no key to verify with.
    """
    from ..identity import issuers

    content = _jwks(jwks, jwks_url)
    with places(context, where["keeper_directory"], where["only"]) as (connection, keeper):
        done = _checked(lambda: issuers.refresh(connection, keeper, name, content))
    for line in done.notes:
        note(context, line)
    emit(context, {"issuer": name, **asdict(done)}, lambda: click.echo(_told(name, done)))


@issuer.command("list")
@keeper_directory
@only
@pass_context
def list_(context: Context, keeper_directory: Path | None, only: str | None) -> None:
    """List the issuers, and who trusts them."""
    from ..identity import issuers

    with places(context, keeper_directory, only) as (connection, keeper):
        known = issuers.registered(connection, keeper)
    rows = [_row(name, entry) for name, entry in known.items()]
    for row in rows if only else ():
        row["keeper" if only == "database" else "database"] = None  # was not asked
    emit(
        context,
        rows,
        lambda: table(rows, ("issuer", "audience", "keys", "max_lifetime", "database", "keeper")),
    )


@issuer.command("remove")
@click.argument("name", metavar="ISS")
@keeper_directory
@only
@pass_context
def remove(context: Context, name: str, keeper_directory: Path | None, only: str | None) -> None:
    """Trust an issuer's tokens no more, from the next login on."""
    from ..identity import issuers

    with places(context, keeper_directory, only) as (connection, keeper):
        issuers.remove(connection, keeper, name)
    emit(context, {"removed": name}, lambda: click.echo(f"{name} removed"))


def _document(
    path: Path | None, url: str | None, options: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    from ..identity import jwks

    content = _jwks(path, url)
    members = {"tenant_id": "claim_tenant", "role": "claim_role", "subject": "claim_subject"}

    def document() -> tuple[dict[str, Any], list[str]]:
        settings = jwks.read_settings(options["settings"]) if options["settings"] else {}
        return jwks.document_from_jwks(
            content,
            issuer=options["name"],
            audience=options["audience"],
            claims={member: options[option] for member, option in members.items() if options[option]},
            max_lifetime=options["max_lifetime"] or settings.get("max_lifetime", 900),
            settings=settings,
        )

    return _checked(document)


def _jwks(path: Path | None, url: str | None) -> bytes:
    from ..identity import jwks

    if (path is None) == (url is None):
        raise click.UsageError("give one of --jwks FILE and --jwks-url URL")
    return _checked(lambda: jwks.read(path) if path else jwks.fetch(url or ""))


def _checked(call: Callable[[], T]) -> T:
    from ..identity.jwks import JwksError

    try:
        return call()
    except JwksError as error:
        fail(str(error))


def _told(name: str, done: Refreshed) -> str:
    if not done.changed:
        return f"{name}: unchanged, {len(done.keys)} key(s)"
    parts = [f"{sign}{kid}" for sign, kids in (("+", done.added), ("-", done.removed)) for kid in kids]
    return f"{name}: {len(done.keys)} key(s), {', '.join(parts) or 'changed'}"


def _row(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    document = entry["document"]
    return {
        "issuer": name,
        "audience": document["audience"],
        "keys": [f"{key['kid']} ({key['alg']})" for key in document["keys"]],
        "claims": document.get("claims", {}),
        "max_lifetime": document.get("max_lifetime", 900),
        "database": entry["database"],
        "keeper": entry["keeper"],
    }
