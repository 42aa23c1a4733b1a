"""Shredding as an operator does it."""

from __future__ import annotations

from tests.support.kms_servers import KmsServer
from wardkey.tenants.certificate import Certificate

GONE = "destruction accepted, not reported any more"


def shred(server: KmsServer, slug: str) -> Certificate:
    """Shred the tenant and return what was certified."""
    code = server.json("tenant", "shred", slug)["code"]
    return Certificate.parse(server("tenant", "shred", slug, "--confirm", code).stdout.encode())
