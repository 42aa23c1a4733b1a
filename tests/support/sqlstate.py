"""Errors by SQLSTATE: psycopg has no classes for those of class WK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

DENIED = "42501"


@contextmanager
def refused(*sqlstates: str) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """Expect an error of one of ``sqlstates``; without any, one that says that a privilege is lacking.

    None of ours shows PL/Python's traceback.
    """
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate in (sqlstates or (DENIED,)), caught.value
    if (caught.value.sqlstate or "").startswith("WK"):
        told = everything(caught.value)
        assert "Traceback" not in told and "PL/Python" not in told


def everything(error: psycopg.Error) -> str:
    """Return all that the client is told."""
    diagnostics = error.diag
    names = [name for name in dir(diagnostics) if not name.startswith("_")]
    return "\n".join([str(error), *(str(getattr(diagnostics, name)) for name in names)])
