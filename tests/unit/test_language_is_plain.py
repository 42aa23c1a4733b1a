"""Text is the PostgreSQL manual's English, and things are named by what they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("src", "plpython", "sql", "migrations", "tests", "bench", "tools", "docs")
WORDS = re.compile(
    r"\b(albeit|amongst|anew|aught|be given the word|beforehand|betwixt|brought|forthwith|gone on with"
    r"|had better|hangs? on|hence|henceforth|hereby|herein|heretofore|hitherto|is had of|lest|naught|nigh"
    r"|of its own accord|thence|thereby|therein|thereof|thereupon|unto|whatever becomes|whatsoever|whence"
    r"|wherein|whereof|whereupon|whilst|whoever|whomever|whosoever|withal)\b",
    re.IGNORECASE,
)
# They say how a value was come by, not what it is.
PARTICIPLES = re.compile(r"_?(brought|following|found|managed_so)_?")


def files(*suffixes: str) -> Iterator[Path]:
    for place in PLACES:
        for path in (ROOT / place).rglob("*"):
            if path.suffix in suffixes and "dist" not in path.parts and path.is_file():
                yield path
    yield from (path for path in ROOT.glob("*") if path.suffix in suffixes)


def archaisms(text: str) -> list[tuple[int, str]]:
    """Return line and word of each; a name's words are parted by underscores."""
    return [(text.count("\n", 0, m.start()) + 1, m[0]) for m in WORDS.finditer(text.replace("_", " "))]


def participles(text: str) -> set[str]:
    if not PARTICIPLES.search(text):
        return set()
    nodes = list(ast.walk(ast.parse(text)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return set(filter(PARTICIPLES.fullmatch, names))


def test_text_has_no_archaism() -> None:
    assert not [
        (str(path.relative_to(ROOT)), *place)
        for path in files(".py", ".sql", ".md", ".toml", ".sh", ".yml")
        if path != Path(__file__)
        for place in archaisms(path.read_text())
    ]


def test_no_name_is_a_participle() -> None:
    named = {str(path.relative_to(ROOT)): participles(path.read_text()) for path in files(".py")}
    assert not {path: names for path, names in named.items() if names}


def test_what_is_looked_for_is_noticed() -> None:
    text = "def test_keys_hang_on_it(): ...\n# Whoever brought it"
    assert archaisms(text) == [(1, "hang on"), (2, "Whoever"), (2, "brought")]
    assert participles("def _found(a, following): found = a") == {"_found", "following", "found"}
