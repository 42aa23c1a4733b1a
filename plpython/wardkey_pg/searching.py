"""Searching sealed columns: tokens of what is written, and the query of a face's find function.

Tokens are made of what a role sees in the clear only. A role that sees a column masked, or not at all, is
given no search key by the keeper, and is refused here before.
"""

from __future__ import annotations

from wardkey_core.errors import NeedleRefused, NoContext
from wardkey_core.plain_json import loads
from wardkey_core.search import SINGLE, Search, is_any, matcher, needle_terms

__all__ = ["find_query", "is_found", "make_tokens"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .context import Session
    from .keyring import TenantKeys

_MOST = 256
_declared: dict[str, Any] = {}  # what the text of a face's function says, read once
_searches: dict[str, list[Search]] = {}
_last: tuple[tuple[str, str, str], Callable[[str], bool]] = ("", "", ""), lambda text: False


def make_tokens(session: Session, values: Sequence[bytes | None], declared: str) -> list[str | None]:
    """Return the tokens of each value that is written, as PostgreSQL reads them; None for None.

    None, too, for one that is to be unique under the odd, or the even, version where no such version lives.

    ``declared``: the searches, as JSON. Raises NoContext, RoleMayNotWrite and what a keeper may say.
    """
    context = session.current(begun=True)
    if context is None:
        raise NoContext
    searches = _searches.get(declared)
    if searches is None:
        searches = _keep(_searches, declared, [_search(each) for each in _read(declared)])
    keys = context.keys
    made: list[str | None] = []
    for value, search in zip(values, searches, strict=True):
        if value is None:
            made.append(None)
            continue
        if not keys.knows(search.column):
            keys = session.look_again()
        maker = keys.making(search, session.release)
        tokens = [] if maker is None else maker.of_value(value)
        if search.kind in SINGLE:
            made.append(str(tokens[0]) if tokens else None)
        else:
            made.append(f"{{{','.join(map(str, tokens))}}}")
    return made


def find_query(
    session: Session, declared: str, needles: Sequence[str | None], former: str
) -> list[str | None]:
    """Return the query for the keys of the rows that match all needles, and the tokens, an array that is $1.

    For one search under one key its place instead of the query, which the find function has.

    ``former``: other classes that values of a search may still be under, by its id. Journals which columns
    are searched. Raises NeedleRefused, ClassHidden and what a keeper may say.
    """
    context = session.current()
    if context is None:
        raise NoContext
    known, classes = _read(declared), loads(former)
    given = [
        (each, needle) for each, needle in zip(known["searches"], needles, strict=True) if needle is not None
    ]
    if not given:
        raise NeedleRefused("a search needs something to look for", "name one argument or more: name => '…'")
    session.report(
        "search", {"table": known["table"], "columns": sorted({each["name"] for each, _ in given})}
    )
    keys: TenantKeys = context.keys
    tokens: list[int] = []
    narrowed, checked = [], []
    for each, needle in given:
        search = _search(each)
        if not keys.knows(search.column):
            keys = session.look_again()
        wanted = needle_terms(search, needle)
        makers = keys.looking_up(search, classes.get(each["id"], ()), session.release)
        sets = [[maker.of_term(term) for term in wanted] for maker in makers]
        if is_any(search):
            sets = [[token for one in sets for token in one]]
        conditions = []
        for one in sets:
            conditions.append(each["token"].replace("$1", f"$1[{len(tokens) + 1}:{len(tokens) + len(one)}]"))
            tokens += one
        narrowed.append(f"({' or '.join(conditions)})")
        checked.append(each["check"])
    array = f"{{{','.join(map(str, tokens))}}}"
    if len(given) == 1 and " or " not in narrowed[0]:
        return [None, array, given[0][0]["place"]]
    return [" and ".join((known["head"], *narrowed, *checked)), array, None]


def is_found(text: str, kind: str, normaliser: str, needle: str) -> bool:
    """Whether an opened value matches."""
    global _last
    place = (kind, normaliser, needle)
    if _last[0] != place:
        _last = place, matcher(*place)
    return _last[1](text)


def _search(facts: Mapping[str, str]) -> Search:
    return Search(bytes.fromhex(facts["column"]), facts["kind"], facts["normaliser"], facts["step"])


def _read(declared: str) -> Any:
    known = _declared.get(declared)
    return known if known is not None else _keep(_declared, declared, loads(declared))


def _keep(kept: dict[str, Any], text: str, value: Any) -> Any:
    if len(kept) >= _MOST:
        kept.clear()
    kept[text] = value
    return value
