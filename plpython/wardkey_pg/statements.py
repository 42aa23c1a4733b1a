"""What the text of the client's statement tells.

Whether it is INSERT … ON CONFLICT DO NOTHING. A view with INSTEAD OF triggers takes that clause, without a
target, and leaves the conflict to the trigger, which PostgreSQL does not tell of it. So the text is read: one
INSERT that has the clause once, at its end, outside literals, comments and parentheses. What is not clearly
that, is not: a conflict is an error then.

Whether the same text again is the same query: FETCH, EXECUTE, CALL and DO do not name what they read.
"""

from __future__ import annotations

__all__ = ["fingerprint", "ignores_conflicts"]

_TOKEN = rb"""
      (?P<space> \s+ | --[^\n]* | /\*(?:(?!/\*|\*/).)*\*/ )
    | (?P<literal>
          [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^'\\]|'')*' | "(?:[^"]|"")*" | \$[0-9]+
        | \$(?P<tag>(?:[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*)?)\$.*?\$(?P=tag)\$ )
    | (?P<word> [A-Za-z_\x80-\xff][0-9A-Za-z_$\x80-\xff]* )
    | (?P<broken> /\* | ['"$\\] )
    | (?P<sign> . )
    """

_LONGEST = 8_192
_NAMING = (b"select", b"with", b"insert", b"update", b"delete", b"merge", b"table")


def fingerprint(statement: bytes) -> int | None:
    """Return what tells the text of one statement that names its tables from others; None for any other."""
    if len(statement) > _LONGEST:
        return None
    text = statement.strip()
    if not text[:6].lower().startswith(_NAMING) or b";" in text[:-1]:
        return None
    return hash(statement)  # keyed: no text of another's is kept, and nobody can make up a second one


def ignores_conflicts(statement: bytes) -> bool:
    """Return whether conflicts of the rows that the statement inserts are to be ignored."""
    if b"conflict" not in statement.lower():
        return False
    import re  # most backends never do

    depth, ended = 0, False
    every: list[bytes] = []
    outer: list[bytes] = []  # words outside parentheses, empty for anything else
    for match in re.finditer(_TOKEN, statement, re.X | re.S):
        token, kind = match[0], match.lastgroup
        if match["space"] is not None:
            continue
        if match["broken"] is not None or ended:
            return False
        if token == b";":
            ended = True
            continue
        depth += (token == b"(") - (token == b")")
        word = token.lower() if kind == "word" else b""
        every.append(word)
        if depth == 0:
            outer.append(word)
    if every.count(b"insert") != 1 or every.count(b"conflict") != 1 or b"conflict" not in outer:
        return False
    place = outer.index(b"conflict")
    clause, rest = outer[place - 1 : place + 3], outer[place + 3 : place + 4]
    return (
        outer[:2] == [b"insert", b"into"]
        and clause == [b"on", b"conflict", b"do", b"nothing"]
        and rest in ([], [b"returning"])
    )
