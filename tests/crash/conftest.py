"""Killed and undisturbed runs are compared word by word: their tables have the same secret."""

from __future__ import annotations

import pytest

from stages.packets.kernels import table


@pytest.fixture(autouse=True)
def one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table hashes in the same way."""
    monkeypatch.setattr(table.secrets, "randbits", lambda bits: 0x5DEECE66D % (1 << bits))
