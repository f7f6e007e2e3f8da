"""Accounts: warns if Connections with different credentials, perhaps of two accounts, share a ledger.

A ledger belongs to a URL. Two Connections to one URL with different credentials may write to two accounts of
the receiver; each account would then receive only the points that the other does not have. Credentials
rotate, so they cannot be part of the ledger's name. Instead, the head of the ledger has a hash of each
Connection's credentials: three bytes, salted with the ledger's name, which are too few to recover a key from.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import is_recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.head import Head
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Account", "note_account"]

log = get_logger(__name__)

CREDENTIALS_BYTES = 3
"""Size of a hash in bytes. Two keys have the same one once in 17 million cases."""

MAX_HASHES = 5
"""Maximum number of hashes stored for a Connection, the latest last."""

DAY = dt.timedelta(days=1)
COMPARED_FOR = 15 * DAY
"""Time after the last delivery of a Connection in which its credentials are compared."""


@dataclass(frozen=True)
class Account:
    """The credentials of a task.

    Attributes:
        conn_id: Id of their Connection.
        credentials: Secret values, by the names of their headers or fields.
    """

    conn_id: str
    credentials: Mapping[str, str]

    def hash(self, salt: str) -> str:
        """Return a short hash of the credentials, which differs from ledger to ledger."""
        text = "\n".join(f"{name.lower()}: {value}" for name, value in sorted(self.credentials.items()))
        return hashlib.blake2b(
            text.encode(errors="surrogatepass"),
            key=hashlib.sha256(salt.encode()).digest(),
            digest_size=CREDENTIALS_BYTES,
        ).hexdigest()


def note_account(head: Head, account: Account, *, salt: str, now: int) -> None:
    """Add an account to the head of a ledger; warn if a Connection with other credentials uses the ledger.

    Args:
        head: Head of the ledger.
        account: Account of the task.
        salt: As for `Account.hash`.
        now: Current time, in seconds since the epoch.

    Raises:
        LedgerUnavailable: The store cannot be read or written.
    """
    current, accounts = account.hash(salt), head.read().get("accounts", {})
    if current in _hashes(accounts, account)[:-1]:  # a rotated key does not come back
        log.warning(
            "The Connection %s delivers to one URL with alternating credentials, %s",
            account.conn_id,
            _REMEDY,
        )
    elif other := _other(accounts, account.conn_id, current, now):
        log.warning(
            "The Connections %s and %s deliver to one URL with different credentials, %s",
            other,
            account.conn_id,
            _REMEDY,
        )
    about = accounts.get(account.conn_id)
    if about is None or about["marks"][-1:] != [current] or not _is_recent(about, DAY, now):
        head.change(lambda head: {**head, "accounts": _with(head.get("accounts", {}), account, current, now)})


_REMEDY = (
    "which share one ledger. If they belong to two accounts of the receiver, each account receives only the"
    " points that the other does not have: give each account a Connection with its own name in the extra"
    " tenant"
)


def _other(accounts: Mapping[str, Json], own: str, current: str, now: int) -> str | None:
    """Return the id of a Connection that has delivered with other credentials."""
    for conn_id, about in sorted(accounts.items()):
        is_other = conn_id != own and about["marks"] and about["marks"][-1] != current
        if is_other and _is_recent(about, COMPARED_FOR, now):
            return conn_id
    return None


def _is_recent(about: Json, limit: dt.timedelta, now: int) -> bool:
    return is_recent(dt.timedelta(seconds=now - about["seen"]), limit)


def _with(accounts: Mapping[str, Json], account: Account, current: str, now: int) -> dict[str, Json]:
    hashes = [*(other for other in _hashes(accounts, account) if other != current), current]
    return {**accounts, account.conn_id: {"marks": hashes[-MAX_HASHES:], "seen": now}}


def _hashes(accounts: Mapping[str, Json], account: Account) -> list[str]:
    return list(accounts.get(account.conn_id, {}).get("marks", []))
