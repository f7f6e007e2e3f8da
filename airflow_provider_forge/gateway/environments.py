"""Environments: resolves the names that people use to the gateway's ids, and ids to stable names.

A lookup costs a call of the account's budget, so its result is cached, in two parts. *Ids by name* expire
after a day: an environment can be deleted and created again under its old name. *Exported names by id* never
expire, unknown ones included: a name is part of the identity of each series, so one that changed would fork
all of them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from airflow_provider_forge.exceptions import (
    ConfigurationError,
    CredentialsBlocked,
    CredentialsRefused,
    ForgeError,
    RetryableError,
)
from airflow_provider_forge.gateway.queries import parse_uuid
from airflow_provider_forge.text import did_you_mean, get_logger, printable
from airflow_provider_forge.windows import is_recent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from airflow_provider_forge.state_store import StateStore

__all__ = ["Environment", "EnvironmentDirectory", "LayeredStateStore"]

log = get_logger(__name__)

LOOK_UP_PAUSE = dt.timedelta(minutes=5)
"""Time for which a lookup is not repeated after it failed, or did not find a name: it costs a call."""

CACHED_FOR = dt.timedelta(days=1)
"""Time for which the id of a name is cached."""

_ARI = "ari:cloud:ecosystem::environment/"
# Atlassian's command line tool says `development` where the gateway says `default`.
_NAME_OF_KEY = {"default": "development"}
_NEVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
_STANDARD_KEYS = ("default", "staging", "production")


@dataclass(frozen=True)
class Environment:
    """An environment of an app.

    Attributes:
        id: Its UUID, in lower case.
        name: `production`, `staging`, `development`, or the key of a custom one; None if unknown.
    """

    id: str
    name: str | None = None

    @classmethod
    def from_gateway(cls, ari_or_id: str, key: str, kind: str) -> Environment:
        """Convert the gateway's `AppEnvironment`, whose id is a UUID or an ARI."""
        name = kind.lower() if key in _STANDARD_KEYS else key
        # A custom environment's key is a developer's choice; make it safe for logs and labels.
        return cls(printable(ari_or_id.rsplit("/", 1)[-1].lower()), printable(name))


class EnvironmentDirectory:
    """Finds the environments of one app.

    Args:
        app_id: UUID of the app.
        look_up: Fetches all environments of the app from the gateway.
        store: Stores environments that were looked up, across tasks.
        clock: Returns the current time, aware.
        lock: Excludes other processes that look up the same.
    """

    def __init__(
        self,
        app_id: str,
        look_up: Callable[[], list[Environment]],
        store: StateStore,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
        *,
        lock: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._lock = lock
        self._app_id = app_id
        self._look_up = look_up
        self._store = store
        self._clock = clock

    def find(self, wanted: Sequence[str]) -> tuple[Environment, ...]:
        """Return the distinct environments, in the order given.

        Args:
            wanted: Names, UUIDs or ARIs of environments.

        Raises:
            ConfigurationError: The app has no environment of a name (the message lists those it has), or an
                ARI is malformed or another app's.
            ForgeError: A lookup was necessary and failed.
        """
        ids = [self._parse_id(entry) for entry in wanted]
        names = [entry for entry, uuid in zip(wanted, ids, strict=True) if uuid is None]
        uuids = [uuid for uuid in ids if uuid]
        known = _KnownEnvironments.load(self._store)
        if not self._is_sufficient(known, names, uuids):
            with self._lock():
                # Another process may have looked up the same in the meantime.
                known = _KnownEnvironments.load(self._store)
                self._update(known, names, uuids)
        found = [
            Environment(uuid, known.names[uuid]) if uuid else self._by_name(known, entry)
            for entry, uuid in zip(wanted, ids, strict=True)
        ]
        distinct: dict[str, Environment] = {}
        for environment in found:
            distinct.setdefault(environment.id, environment)
        return tuple(distinct.values())

    def _is_sufficient(self, known: _KnownEnvironments, names: Sequence[str], uuids: Sequence[str]) -> bool:
        now = self._clock()
        fresh = known.is_fresh(now) or known.is_paused(now)
        return all(uuid in known.names for uuid in uuids) and all(
            known.is_missing(name, now) or (fresh and known.id_of(name)) for name in names
        )

    def _update(self, known: _KnownEnvironments, names: Sequence[str], uuids: Sequence[str]) -> None:
        before = msgspec.to_builtins(known)
        if not self._is_sufficient(known, names, ()):
            self._refresh(known, names)
        if unnamed := [uuid for uuid in uuids if uuid not in known.names]:
            self._determine_names(known, unnamed)
        if msgspec.to_builtins(known) != before:
            known.save(self._store)

    def _parse_id(self, entry: str) -> str | None:
        if not entry.startswith("ari:"):
            return parse_uuid(entry)
        app, _, environment = entry.removeprefix(_ARI).partition("/")
        uuid = parse_uuid(environment)
        if uuid is None or not entry.startswith(_ARI):
            raise ConfigurationError(
                "environments", f"{entry!r} is malformed; the format is {_ARI}<app>/<environment>"
            )
        if app.lower() != self._app_id:
            raise ConfigurationError("environments", f"{entry!r} does not belong to the app {self._app_id}")
        return uuid

    def _refresh(self, known: _KnownEnvironments, names: Sequence[str]) -> None:
        """Look the names up. If the gateway does not answer, use the expired ids, if they are complete."""
        try:
            known.learn(self._look_up(), self._clock())
            known.missing = {name: self._clock() for name in names if not known.id_of(name)}
        except RetryableError as error:
            if isinstance(error, CredentialsBlocked) or not all(known.id_of(name) for name in names):
                raise
            known.tried = self._clock()
            log.warning(
                "The environments of %s could not be looked up again, so those found at %s are used: %s",
                self._app_id,
                known.seen,
                error,
            )

    def _determine_names(self, known: _KnownEnvironments, uuids: Sequence[str]) -> None:
        """Determine the exported names of environments that are configured by their id; they never change."""
        if not all(uuid in known.ids.values() for uuid in uuids):
            try:
                known.learn(self._look_up(), self._clock())
            except (ConfigurationError, CredentialsBlocked, CredentialsRefused):
                raise  # says nothing about these environments
            except ForgeError as error:
                log.warning(
                    "The names of the environments %s are unknown, so these are exported without a name: %s",
                    ", ".join(uuids),
                    error,
                )
        name_of = {uuid: name for name, uuid in known.ids.items()}
        known.names |= {uuid: name_of.get(uuid) for uuid in uuids}

    def _by_name(self, known: _KnownEnvironments, name: str) -> Environment:
        uuid = known.id_of(name)
        if uuid is None:
            existing = ", ".join(sorted(known.ids)) or "none"
            hint = did_you_mean(name, known.ids)
            raise ConfigurationError(
                "environments", f"there is no {name!r}.{hint} There are: {existing} (app {self._app_id})"
            )
        # The configured name, even if the environment has been renamed since.
        return Environment(uuid, known.name_of(name))


class _KnownEnvironments(msgspec.Struct):
    """The cached environments of an app, as stored.

    Attributes:
        seen: Time of the last successful lookup.
        ids: UUIDs by name, as of then.
        names: Exported names by UUID, of environments that are configured by it; None for no name.
        missing: Names that a lookup did not find, with its time.
        tried: Time of the last failed lookup for which expired ids sufficed.
    """

    seen: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    ids: dict[str, str] = {}
    names: dict[str, str | None] = {}
    missing: dict[str, Annotated[dt.datetime, msgspec.Meta(tz=True)]] = {}
    tried: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None

    @classmethod
    def load(cls, store: StateStore) -> _KnownEnvironments:
        try:
            return msgspec.convert(store.load(), cls)
        except msgspec.ValidationError:
            log.warning("The cached environments of the app are damaged; they are looked up again")
            return cls()

    def save(self, store: StateStore) -> None:
        # Another task may have determined a name during this lookup: the first one wins.
        self.names = {**self.names, **_KnownEnvironments.load(store).names}
        store.save(msgspec.to_builtins(self))

    def learn(self, environments: list[Environment], now: dt.datetime) -> None:
        self.seen = now
        self.ids = {environment.name: environment.id for environment in environments if environment.name}

    def is_fresh(self, now: dt.datetime) -> bool:
        return self.seen is not None and is_recent(now - self.seen, CACHED_FOR)

    def is_paused(self, now: dt.datetime) -> bool:
        return self.tried is not None and is_recent(now - self.tried, LOOK_UP_PAUSE)

    def is_missing(self, name: str, now: dt.datetime) -> bool:
        looked_up = self.missing.get(name)
        return not self.id_of(name) and looked_up is not None and is_recent(now - looked_up, LOOK_UP_PAUSE)

    def merge(self, other: _KnownEnvironments) -> _KnownEnvironments:
        """Return the later lookup, with the names of both; this one's win."""
        later = max(self, other, key=lambda known: known.seen or _NEVER)
        return msgspec.structs.replace(later, names={**other.names, **self.names})

    def id_of(self, name: str) -> str | None:
        return self.ids.get(self.name_of(name))

    @staticmethod
    def name_of(name: str) -> str:
        return _NAME_OF_KEY.get(name, name)


class LayeredStateStore:
    """Combines several stores, such as an Airflow Variable and a file, because some callers can use only one.

    Args:
        stores: If they differ in the name of an environment, the first one wins.
    """

    def __init__(self, *stores: StateStore) -> None:
        self._stores = stores
        self._synchronized = False
        self._unreadable: set[int] = set()

    def load(self) -> dict[str, Any]:
        """Return the merged object, and save it once to the stores that lack names.

        Raises:
            RetryableError: A store cannot be read, and the others are empty.
        """
        known: dict[int, _KnownEnvironments] = {}
        failure: RetryableError | None = None
        self._unreadable.clear()
        for index, store in enumerate(self._stores):
            try:
                known[index] = _KnownEnvironments.load(store)
            except RetryableError as error:
                failure = error
                self._unreadable.add(index)
        merged = functools.reduce(_KnownEnvironments.merge, known.values(), _KnownEnvironments())
        if failure and not merged.seen and not merged.names:
            raise failure
        content: dict[str, Any] = msgspec.to_builtins(merged)
        for index, stored in known.items():
            if not self._synchronized and stored.names != merged.names:
                self._stores[index].save(content)
        self._synchronized = True
        return content

    def save(self, content: dict[str, Any]) -> None:
        """Save the object to each store, except those that could not be read: they may hold more."""
        for index, store in enumerate(self._stores):
            if index not in self._unreadable:
                store.save(content)
