"""Option --claim of commands that sign a token."""

from __future__ import annotations

import click

__all__ = ["claims_option"]


def _parse(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    claims = dict(claim.split("=", 1) for claim in given if "=" in claim)
    if len(claims) < len(given):
        raise click.BadParameter("give each claim once, as NAME=VALUE")
    return claims


claims_option = click.option(
    "--claim",
    "claims",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_parse,
    help="What row rules ask for; may be repeated.",
)
