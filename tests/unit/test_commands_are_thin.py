"""A command parses, calls and renders: what it does is a use case below the CLI, which needs no click."""

import ast
from collections.abc import Iterator
from pathlib import Path

_CLI = Path(__file__).parents[2] / "src/wardkey/cli"
_LONGEST = 15


def _commands() -> Iterator[tuple[str, int]]:
    """Yield each command and the lines of its body, without its docstring."""
    for path in sorted(_CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                ".command(" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                yield (
                    f"{path.name}: {node.name}",
                    ((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0),
                )


def test_no_command_has_more_than_15_lines() -> None:
    commands = dict(_commands())
    assert len(commands) > 60
    assert not {name: lines for name, lines in commands.items() if lines > _LONGEST}
