"""``wardkey completion``: for bash, zsh and fish."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ._output import fail


@click.command()
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str | None) -> None:
    """Print the completion script for your shell.

    For bash: wardkey completion bash >> ~/.bashrc
    """
    from . import cli

    name = shell or Path(os.environ.get("SHELL", "")).name
    script = get_completion_class(name)
    if script is None:
        fail("your shell is not known", "wardkey completion bash|zsh|fish")
    click.echo(script(cli, {}, "wardkey", "_WARDKEY_COMPLETE").source())
