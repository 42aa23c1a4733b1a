"""The keeper believes what its own issuers.json says now; if it cannot trust that, it believes nobody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from wardkey_core import verifier
from wardkey_core.errors import InvalidToken, KeyRefused, TokenExpired, WardError

from tests.support.keepers import ACME, Keeper, is_root
from wardkey.embedded.issuer import EmbeddedIssuer
from wardkey.keeper.trust import TrustedIssuers, write_documents


def test_a_replaced_file_takes_effect_at_once(keeper: Keeper) -> None:
    request = keeper.provision()
    other = EmbeddedIssuer.open(keeper.base / "other", "other")
    theirs = {**request, "token": other.sign_token(request["tenant"], "dr.house", "ADMIN")}
    for _ in range(5):
        keeper.trust(keeper.issuer.document())
        assert keeper.ask(**request)
        with pytest.raises(InvalidToken):
            keeper.ask(**theirs)
        keeper.trust(other.document())
        assert keeper.ask(**theirs)
        with pytest.raises(InvalidToken):
            keeper.ask(**request)
    keeper.trust(keeper.issuer.document(), other.document())
    assert keeper.ask(**request) == keeper.ask(**theirs)


def test_a_removed_file_means_no_issuer(keeper: Keeper) -> None:
    request = keeper.provision()
    assert keeper.ask(**request)
    keeper.issuers_file.unlink()
    with pytest.raises(InvalidToken):
        keeper.ask(**request)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"issuers": {}}',
        b'{"issuers": [1]}',
        b'{"issuers": [{"issuer": "x"}]}',
        b'{"issuers": [], "issuers": []}',
        b'{"issuers": [], "more": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_damaged_file_closes_the_keeper(keeper: Keeper, content: bytes) -> None:
    request = keeper.provision()
    assert keeper.ask(**request)
    good = keeper.issuers_file.read_bytes()
    keeper.issuers_file.write_bytes(content)
    with pytest.raises(KeyRefused, match="issuers"):
        keeper.ask(**request)
    assert "cannot be used" in keeper.errors
    keeper.issuers_file.write_bytes(good)
    assert keeper.ask(**request)


def test_a_file_that_others_may_write_closes_the_keeper(keeper: Keeper) -> None:
    request = keeper.provision()
    for mode in (0o622, 0o602, 0o660):
        keeper.issuers_file.chmod(mode)
        with pytest.raises(KeyRefused):
            keeper.ask(**request)
    keeper.issuers_file.chmod(0o644)
    assert keeper.ask(**request)


def test_a_symlink_closes_the_keeper(keeper: Keeper) -> None:
    request = keeper.provision()
    keeper.issuers_file.rename(keeper.base / "elsewhere")
    keeper.issuers_file.symlink_to(keeper.base / "elsewhere")
    with pytest.raises(KeyRefused):
        keeper.ask(**request)


@pytest.mark.skipif(not is_root(), reason="only root can give files away")
def test_a_file_of_another_user_closes_the_keeper(keeper: Keeper) -> None:
    import os

    request = keeper.provision()
    os.chown(keeper.issuers_file, 65534, 65534)
    with pytest.raises(WardError):
        keeper.ask(**request)
    os.chown(keeper.issuers_file, 0, 0)
    assert keeper.ask(**request)


def test_a_token_known_to_be_good_is_good_no_longer_than_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = EmbeddedIssuer.open(tmp_path / "issuer", "test")
    write_documents(tmp_path / "issuers.json", [issuer.document()])
    trust, verified = TrustedIssuers(tmp_path / "issuers.json", print), []
    real = verifier.verify
    monkeypatch.setattr(verifier, "verify", lambda *args: verified.append(args) or real(*args))
    now, token = time.time(), issuer.sign_token(ACME, "dr.grey", "ADMIN", 60)
    claims = trust.verify(token, now)
    assert trust.verify(token, now + 1) == claims and len(verified) == 1
    changed = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    for other in (changed, token + "=", token[:-1]):
        with pytest.raises(InvalidToken):
            trust.verify(other, now + 1)
    assert trust.verify(token, claims.expires_at - 0.001) == claims
    for late in (claims.expires_at, claims.expires_at + 1000):
        with pytest.raises(TokenExpired):
            trust.verify(token, late)
    with pytest.raises(InvalidToken, match="not valid yet"):  # a clock that was set back
        trust.verify(token, now - 1000)
    monkeypatch.setattr(verifier, "_MOST_VERIFIED", 3)
    for _ in range(5):
        trust.verify(issuer.sign_token(ACME, "dr.grey", "ADMIN", 60), now)
    assert len(trust._verifier._verified) == 3
