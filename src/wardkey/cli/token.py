"""``wardkey token``: a token of the embedded issuer, for trying things by hand."""

from __future__ import annotations

from typing import Any

import click
from wardkey_core.tokens import ROLES

from ._claims import claims_option
from ._context import Context, pass_context
from ._output import emit, note


@click.command()
@click.option("--tenant", "slug", metavar="SLUG", required=True, help="The tenant, by its slug.")
@click.option("--subject", metavar="WHO", required=True, help="The person or program that asks.")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), required=True)
@click.option("--lifetime", metavar="SECONDS", type=click.IntRange(1, 900), default=900, show_default=True)
@click.option("--purpose", metavar="WHAT FOR", help="What the audit log is to say it was for.")
@claims_option
@pass_context
def token(
    context: Context,
    /,
    slug: str,
    subject: str,
    role: str,
    lifetime: int,
    claims: dict[str, str],
    **given: Any,
) -> None:
    """Sign a token with the embedded issuer.

    Prints the token alone. Until it expires it opens the tenant's data: keep it out of logs and files.
    """
    from ..embedded.issuer import embedded_issuer
    from ..identity import issuers

    with context.connect() as connection:
        signer, added = embedded_issuer(connection, context.home)
        tenant = issuers.tenant_id(connection, slug)
    if added:
        note(context, f"issuer {signer.name} registered")
    try:
        signed = signer.sign_token(tenant, subject, role, lifetime, further=claims, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    facts = {"token": signed, "tenant": slug, "tenant_id": tenant, "subject": subject, "role": role}
    emit(context, {**facts, "lifetime": lifetime}, lambda: click.echo(signed))
