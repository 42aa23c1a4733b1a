"""JSON through the C functions that module ``json`` itself stands on: strictly, and without importing it.

``json`` imports ``re`` and ``enum``, and compiles expressions that only its fallback in Python uses: 8 ms of
each backend. Where there are no C functions, this uses ``json``. Numbers are as Python has them.
"""

from __future__ import annotations

__all__ = ["dumps", "loads"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\n\r"


def loads(text: str) -> Any:
    """Read one JSON value. Raises ValueError, also for a member twice, NaN and Infinity; RecursionError."""
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration:
        raise ValueError("no JSON value") from None
    if text[end:].strip(_SPACE):
        raise ValueError("more than one JSON value")
    return value


def dumps(value: object, *, ascii_only: bool = False) -> str:
    """Write JSON of dicts, lists, texts, numbers, Booleans and None, without spaces.

    Text stays as it is, or is escaped to be ASCII.
    """
    return "".join((_encode_ascii if ascii_only else _encode)(value, 0))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _refuse_value(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not for JSON")


_scan: Callable[[str, int], tuple[Any, int]]
_encode: Callable[..., Any]
_encode_ascii: Callable[..., Any]
try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    from json import JSONDecoder, JSONEncoder

    _scan = JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant).raw_decode
    _encode, _encode_ascii = (
        JSONEncoder(ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False).iterencode
        for ascii_only in (False, True)
    )
else:

    class _Options:
        strict = True
        object_hook = None
        object_pairs_hook = staticmethod(_once)
        parse_float = float
        parse_int = int
        parse_constant = staticmethod(_refuse_constant)

    _options: Any = _Options
    _scan = make_scanner(_options)
    _encode, _encode_ascii = (
        make_encoder(None, _refuse_value, encode_text, None, ":", ",", False, False, False)
        for encode_text in (encode_basestring, encode_basestring_ascii)
    )
