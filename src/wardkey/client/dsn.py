"""The DSN of every tenant's login role: a template with ``{tenant}`` where its slug belongs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ..errors import InvalidSlug, ServerError, UnknownTenant

__all__ = ["Template", "Tenants"]

Tenants = Mapping[str, str] | Callable[[str], str | None]

_SLUG = re.compile(r"[a-z][a-z0-9_]{0,47}")  # that of table ward_internal.tenants
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PLACE = "{tenant}"


class Template:
    """What to connect with as which tenant.

    ``tenants``: slugs by tenant id, for tokens that name only the id. A slug is put where ``{tenant}``
    stands after the DSN was parsed: nothing in it can become another part.
    """

    def __init__(self, dsn: str, tenants: Tenants | None) -> None:
        try:
            self._parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        except ProgrammingError:
            self._parts = {}
        if dsn and not self._parts:
            raise ServerError("the DSN is not valid", "postgresql://tenant_{tenant}@host/dbname")
        self._tenants = tenants
        self.is_of_one = not any(_PLACE in value for value in self._parts.values())

    def slug(self, tenant: str) -> str:
        """Return the slug of a tenant that is named by it or by its id; "" if the DSN names a role itself.

        Raises UnknownTenant, InvalidSlug.
        """
        if self.is_of_one:
            return ""
        if _UUID.fullmatch(tenant):
            tenant = self._look_up(tenant)
        if not _SLUG.fullmatch(tenant):
            raise InvalidSlug(
                "not a tenant's slug", "lower-case letters, digits and underscores, a letter first"
            )
        return tenant

    def parts(self, slug: str) -> dict[str, Any]:
        """Return the parameters of a connection as the tenant called ``slug``."""
        return {name: value.replace(_PLACE, slug) for name, value in self._parts.items()}

    def _look_up(self, tenant: str) -> str:
        tenants = self._tenants
        slug = tenants(tenant) if callable(tenants) else (tenants or {}).get(tenant)
        if slug is None:
            raise UnknownTenant(
                "nobody says what the slug of this tenant is",
                'add the claim "tenant" to tokens, or give Wards tenants={id: slug}, a mapping or a callable',
            )
        return slug
