"""What of a KMS's URI is in the names of its KEKs: by so much, one KMS is told from another.

Vault's KEKs are named by their mount, Google's by project and location. In AWS and in PKCS#11 tokens a
tenant's KEK has the same name everywhere, but no two versions are ever called alike.
"""

from __future__ import annotations

__all__ = ["is_same", "may_hold", "place_of", "scheme_of"]


def scheme_of(uri: str) -> str:
    return uri.partition(":")[0]


def is_same(one: str, other: str) -> bool:
    """Whether both URIs lead to one KMS, be it at another address or with other options."""
    return (scheme_of(one), place_of(one)) == (scheme_of(other), place_of(other))


def may_hold(uri: str, kek: str) -> bool:
    """Whether a KEK of this name may be in the KMS at ``uri``."""
    scheme, _, name = kek.partition(":")
    if scheme != scheme_of(uri):
        return False
    match scheme:
        case "vault":
            return name.rpartition("/")[0] == place_of(uri)
        case "gcpkms":
            return name.partition("/keyRings/")[0] == place_of(uri)
    return True


def place_of(uri: str) -> str:
    """Return the mount of a Vault; project and location; the region; the token."""
    address = uri.partition(":")[2].removeprefix("//").partition("?")[0]
    if scheme_of(uri) == "vault":
        return address.partition("/")[2].strip("/") or "transit"
    return address
