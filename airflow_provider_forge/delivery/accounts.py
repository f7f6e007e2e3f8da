"""Accounts: credentials by which a receiver may tell apart what goes to one URL.

The record of deliveries is of a URL. Two Connections to one URL with different credentials may write to two
accounts, and then each gets what the other has not. Credentials rotate, so they are no part of the record's
name; the head of the record says which Connection used which, by a hash of three bytes with the record's name
as salt: too short to find a key by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.delivery.head import Head
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["Account", "note_account"]

log = get_logger(__name__)

CREDENTIALS_BYTES = 3
"""Two keys are taken for one once in 17 million times."""

MOST_MARKS = 5
"""Credentials of a Connection that are remembered, the latest last."""

DAY = 24 * 60 * 60
FORGOTTEN_AFTER = 15 * DAY
"""Seconds after which a Connection that delivers no more is of no matter."""


@dataclass(frozen=True)
class Account:
    """The credentials of a task.

    Attributes:
        conn_id: Of the Connection that has them.
        credentials: Header names, or other fields, and their secret values.
    """

    conn_id: str
    credentials: Mapping[str, str]

    def point_hash(self, salt: str) -> str:
        """Return a short hash of the credentials, which is another one in each record."""
        text = "\n".join(f"{name.lower()}: {value}" for name, value in sorted(self.credentials.items()))
        return hashlib.blake2b(
            text.encode(errors="surrogatepass"),
            key=hashlib.sha256(salt.encode()).digest(),
            digest_size=CREDENTIALS_BYTES,
        ).hexdigest()


def note_account(head: Head, account: Account, *, salt: str, now: int) -> None:
    """Add an account to the head of a record; warn if a Connection with other credentials is in it.

    Args:
        head: Of the record.
        account: The task's.
        salt: As for `Account.mark`.
        now: Seconds of the epoch.

    Raises:
        LedgerUnavailable: The store does not answer.
    """
    point_hash, accounts = account.point_hash(salt), head.read().get("accounts", {})
    if point_hash in _point_hashes(accounts, account)[:-1]:  # no rotation goes back
        log.warning(
            "The Connection %s delivers to one URL with different credentials in turn, and %s",
            account.conn_id,
            _REMEDY,
        )
    elif other := _other(accounts, account.conn_id, point_hash, now):
        log.warning(
            "The Connections %s and %s deliver to one URL with different credentials, and %s",
            other,
            account.conn_id,
            _REMEDY,
        )
    about = accounts.get(account.conn_id)
    if about is None or about["marks"][-1:] != [point_hash] or about["seen"] <= now - DAY:
        head.change(
            lambda head: {**head, "accounts": _noted(head.get("accounts", {}), account, point_hash, now)}
        )


_REMEDY = (
    "share one record of deliveries. If these are two accounts of the receiver, each gets only what the other"
    " has not: give each a Connection with a name of its own in the extra tenant"
)


def _other(accounts: Mapping[str, Json], own: str, point_hash: str, now: int) -> str | None:
    """Return the id of a Connection that delivers with other credentials."""
    for conn_id, about in sorted(accounts.items()):
        is_other = conn_id != own and about["marks"] and about["marks"][-1] != point_hash
        if is_other and about["seen"] > now - FORGOTTEN_AFTER:
            return conn_id
    return None


def _noted(accounts: Mapping[str, Json], account: Account, point_hash: str, now: int) -> dict[str, Json]:
    point_hashes = [*(other for other in _point_hashes(accounts, account) if other != point_hash), point_hash]
    return {**accounts, account.conn_id: {"marks": point_hashes[-MOST_MARKS:], "seen": now}}


def _point_hashes(accounts: Mapping[str, Json], account: Account) -> list[str]:
    return list(accounts.get(account.conn_id, {}).get("marks", []))
