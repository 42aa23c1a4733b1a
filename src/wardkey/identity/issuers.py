"""Issuers of tokens, and where they are registered.

An issuer document (``wardkey_core.tokens.Issuer``) is registered twice: in the database, which lets its
tokens log in, and in the keeper's directory, out of the database's reach, which lets them release keys.
``register`` and ``remove`` change both or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardkey_core.administration import UnknownObject, Unsupported
from wardkey_core.tokens import Issuer

from ..daemon.files import locked
from ..errors import ServerError
from ..keeper.trust import ISSUERS_FILE, read_documents, write_documents
from ..keys.registry import tenant_id
from .jwks import document_from_jwks

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Refreshed", "refresh", "register", "registered", "remove", "tenant_id"]

Documents = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of an issuer's keys: the names of those there are, came and went."""

    keys: list[str]
    added: list[str]
    removed: list[str]
    notes: list[str]
    changed: bool


def register(connection: Connection[Any] | None, keeper: Path | None, document: Mapping[str, Any]) -> None:
    """Register an issuer, or replace what is known of it, in the database and in the keeper; commits.

    In one of them only where the other is None: an OS user that reaches one does not reach the other. Raises
    Unsupported for a bad document, psycopg.Error, OSError, ServerError.
    """
    from psycopg.types.json import Jsonb

    try:
        issuer = Issuer.from_document(document).issuer
    except ValueError as error:
        raise Unsupported(f"issuer document: {error}") from None
    _change(
        connection,
        keeper,
        ("select ward.add_issuer(%s)", [Jsonb(document)]),
        lambda known: [*_without(known, issuer), dict(document)],
    )


def remove(connection: Connection[Any] | None, keeper: Path | None, issuer: str) -> None:
    """Stop trusting an issuer, in the database and in the keeper; commits.

    Raises as ``register``, UnknownObject.
    """
    names = registered(connection, keeper)
    if issuer not in names:
        raise UnknownObject("no such issuer", "list them: wardkey issuer list")
    statement = ("select ward.remove_issuer(%s)", [issuer]) if names[issuer]["database"] else None
    _change(connection, keeper, statement, lambda known: _without(known, issuer))


def refresh(connection: Connection[Any] | None, keeper: Path | None, issuer: str, jwks: bytes) -> Refreshed:
    """Have the keys of a known issuer be those of its JWKS as it is now; commits, if that is a change.

    Nothing else of what is known of it changes, and nobody trusts it who did not. Raises as ``remove``,
    JwksError.
    """
    entry = registered(connection, keeper).get(issuer)
    if entry is None:
        raise UnknownObject("no such issuer", "list them: wardkey issuer list")
    if (connection is not None and not entry["database"]) or (keeper is not None and not entry["keeper"]):
        raise Unsupported(
            "database and keeper trust different documents of this issuer", "add it again: wardkey issuer add"
        )
    before = entry["document"]
    rest = {name: value for name, value in before.items() if name != "keys"}
    lifetime = before.get("max_lifetime", 900)
    made, notes = document_from_jwks(
        jwks, issuer=issuer, audience=before["audience"], max_lifetime=lifetime, settings=rest
    )
    if changed := made["keys"] != before["keys"]:
        register(connection, keeper, {**before, "keys": made["keys"]})
    then, now = ([key["kid"] for key in document["keys"]] for document in (before, made))
    added, removed = [kid for kid in now if kid not in then], [kid for kid in then if kid not in now]
    return Refreshed(now, added, removed, notes, changed)


def registered(connection: Connection[Any] | None, keeper: Path | None) -> dict[str, dict[str, Any]]:
    """Return by name each issuer's ``document`` and whether ``database`` and ``keeper`` trust that one.

    One that is None is not asked, and trusts nobody.
    """
    query = "select document from ward.issuers order by issuer"
    rows = connection.execute(query).fetchall() if connection else []
    theirs = {row[0]["issuer"]: row[0] for row in rows}
    ours = {document["issuer"]: document for document in (_read(keeper) if keeper else ())}
    return {
        name: {
            "document": theirs.get(name, ours.get(name)),
            "database": name in theirs,
            "keeper": name in ours and ours[name] == theirs.get(name, ours[name]),
        }
        for name in sorted(theirs | ours)
    }


def _change(
    connection: Connection[Any] | None,
    keeper: Path | None,
    statement: tuple[str, list[Any]] | None,
    change: Callable[[Documents], Documents],
) -> None:
    """Run ``statement``, write the keeper's file, commit; whatever fails, neither shall keep the change."""
    if keeper is None:
        if connection is not None and statement is not None:
            connection.execute(*statement)
            connection.commit()
        return
    path = keeper / ISSUERS_FILE
    _read(keeper)
    with locked(keeper):
        before = _read(keeper)
        if connection is not None and statement is not None:
            connection.execute(*statement)
        try:
            write_documents(path, change(before))
            if connection is not None:
                connection.commit()
        except BaseException:
            with suppress(OSError):
                write_documents(path, before)
            raise


def _read(keeper: Path) -> Documents:
    if not keeper.is_dir():
        raise ServerError(
            f"the keeper's directory {keeper} is not here",
            "run this on the keeper's host, as a user who may write there, with --keeper-directory",
        )
    try:
        return read_documents(keeper / ISSUERS_FILE)
    except ValueError as error:
        raise ServerError(
            f"{keeper / ISSUERS_FILE}: {error}", "restore it, or remove it and add issuers again"
        ) from None


def _without(documents: Documents, issuer: str) -> Documents:
    return [document for document in documents if document["issuer"] != issuer]
