"""A backend's modules come from one file where that is of its Python, and none is left half loaded."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest
import wardkey_pg

Load = Callable[[bytes, str], None]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a file of a magic number and one module, ``wardkey_pg.made``."""
    monkeypatch.setattr(wardkey_pg, "__path__", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "wardkey_pg.made", None)  # to be as it was afterwards
    monkeypatch.delitem(sys.modules, "wardkey_pg.made")
    monkeypatch.setattr(wardkey_pg, "made", None, raising=False)

    def load(magic: bytes, source: str) -> None:
        code = compile(source, "wardkey_pg/made.py", "exec")
        (tmp_path / "together").write_bytes(magic + marshal.dumps([("wardkey_pg.made", False, code)]))
        wardkey_pg._load_together()

    return load


def test_modules_of_this_python_are_loaded_once(load: Load) -> None:
    load(MAGIC_NUMBER, "from . import __version__ as version")
    assert sys.modules["wardkey_pg.made"].version == wardkey_pg.__version__
    assert wardkey_pg.made is sys.modules["wardkey_pg.made"]
    load(MAGIC_NUMBER, "raise AssertionError")


def test_another_pythons_are_not(load: Load) -> None:
    load(bytes(4), "raise AssertionError")
    assert "wardkey_pg.made" not in sys.modules


def test_a_module_that_fails_is_tried_again(load: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        load(MAGIC_NUMBER, "1 / 0")
    assert "wardkey_pg.made" not in sys.modules
