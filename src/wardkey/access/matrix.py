"""The access control matrix of a tenant as a page of HTML, which loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from wardkey_core.policy import ROLES

__all__ = ["render"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
th, td { border: 1px solid #c9d1da; padding: .35rem .6rem; text-align: left; vertical-align: top }
th { background: #eef2f6 }
.clear { background: #e2f3e7 } .mask { background: #fdf3d3 } .none { background: #f6e1e1 }
small { color: #55606c } @media print { body { margin: 0 } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CSP = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


def render(facts: dict[str, Any]) -> str:
    """Return the page."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    pages.filters["time"] = lambda moment: (
        "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    )
    return pages.get_template("matrix.html").render(
        facts=facts,
        roles=ROLES,
        cells={(cell["role"], cell["class"]): cell for cell in facts["cells"]},
        made=datetime.now(UTC),
        style=_STYLE,
        csp=_CSP,
    )
