"""A backend's modules come from one file where that is of its Python, and none is left half loaded."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest
import wardkey_pg
from cryptography.hazmat.bindings import _rust

Load = Callable[..., None]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a file of a magic number and one module, ``wardkey_pg.made``."""
    monkeypatch.setattr(wardkey_pg, "__path__", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "wardkey_pg.made", None)  # to be as it was afterwards
    monkeypatch.delitem(sys.modules, "wardkey_pg.made")
    monkeypatch.setattr(wardkey_pg, "made", None, raising=False)

    def load(magic: bytes, source: str, *libraries: tuple[str, str]) -> None:
        code = compile(source, "wardkey_pg/made.py", "exec")
        made = marshal.dumps((libraries, [("wardkey_pg.made", False, code)]))
        (tmp_path / "together").write_bytes(magic + made)
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


def test_a_module_in_c_is_loaded_from_where_it_was_and_found_where_it_is_not(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, moved = "cryptography.hazmat.bindings._rust.openssl.aead", str(tmp_path / "moved.so")
    for name in (part, "_json"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    load(MAGIC_NUMBER, "import _json", (part, str(_rust.__file__)), ("_json", moved))
    assert sys.modules[part].AESGCM is _rust.openssl.aead.AESGCM
    assert sys.modules["_json"]
