"""Environments: from the names people use to the ids that the gateway takes, and back to a stable name.

A look-up costs a call of the account's budget, so its outcome is remembered. Two things are remembered, for
two reasons. *Which ids the names stand for* holds for a day: an environment can be deleted and made anew
under its old name. *How an id is called in what is exported* holds for good, the answer "not known" included:
it is part of each series' identity, and a name that came or went would fork all of them.
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
    CredentialsRefused,
    ForgeError,
    RetryableError,
)
from airflow_provider_forge.gateway.queries import parse_uuid
from airflow_provider_forge.text import get_logger, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from airflow_provider_forge.state_store import StateStore

__all__ = ["Environment", "EnvironmentDirectory", "LayeredStateStore"]

log = get_logger(__name__)

LEFT_ALONE = dt.timedelta(minutes=5)
"""For how long a look-up is not repeated that failed, or that did not find a name: it costs a call."""

REMEMBERED = dt.timedelta(days=1)
"""How long a name stands for the id that was looked up."""

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
        name: `production`, `staging`, `development`, or the key of a custom one; None where it isn't known.
    """

    id: str
    name: str | None = None

    @classmethod
    def from_gateway(cls, ari_or_id: str, key: str, kind: str) -> Environment:
        """Make one of the gateway's `AppEnvironment`; its id comes as a UUID or as an ARI."""
        name = kind.lower() if key in _STANDARD_KEYS else key
        # A custom environment's key is a developer's choice; here it becomes text for logs and labels.
        return cls(printable(ari_or_id.rsplit("/", 1)[-1].lower()), printable(name))


class EnvironmentDirectory:
    """Finds the environments of one app.

    Args:
        app_id: UUID of the app.
        look_up: Asks the gateway for all environments of the app.
        store: Stores environments that were looked up, across tasks.
        clock: Returns the present, aware.
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
        """Return the distinct environments that are meant, in their order.

        Args:
            wanted: Names, UUIDs or ARIs of environments.

        Raises:
            ConfigurationError: There is no environment of such a name (the message lists those there are),
                or an ARI is malformed or another app's.
            ForgeError: A name had to be looked up, and that failed.
        """
        ids = [self._parse_id(entry) for entry in wanted]
        names = [entry for entry, uuid in zip(wanted, ids, strict=True) if uuid is None]
        uuids = [uuid for uuid in ids if uuid]
        known = _Known.load(self._store)
        if not self._suffices(known, names, uuids):
            with self._lock():
                # Another process may have looked up the same meanwhile.
                known = _Known.load(self._store)
                self._learn(known, names, uuids)
        found = [
            Environment(uuid, known.names[uuid]) if uuid else self._by_name(known, entry)
            for entry, uuid in zip(wanted, ids, strict=True)
        ]
        distinct: dict[str, Environment] = {}
        for environment in found:
            distinct.setdefault(environment.id, environment)
        return tuple(distinct.values())

    def _suffices(self, known: _Known, names: Sequence[str], uuids: Sequence[str]) -> bool:
        now = self._clock()
        fresh = known.is_fresh(now) or known.was_tried(now)
        return all(uuid in known.names for uuid in uuids) and all(
            known.is_missing(name, now) or (fresh and known.id_of(name)) for name in names
        )

    def _learn(self, known: _Known, names: Sequence[str], uuids: Sequence[str]) -> None:
        before = msgspec.to_builtins(known)
        if not self._suffices(known, names, ()):
            self._refresh(known, names)
        if unnamed := [uuid for uuid in uuids if uuid not in known.names]:
            self._name(known, unnamed)
        if msgspec.to_builtins(known) != before:
            known.save(self._store)

    def _parse_id(self, entry: str) -> str | None:
        if not entry.startswith("ari:"):
            return parse_uuid(entry)
        app, _, environment = entry.removeprefix(_ARI).partition("/")
        uuid = parse_uuid(environment)
        if uuid is None or not entry.startswith(_ARI):
            raise ConfigurationError(
                "environments", f"{entry!r} is malformed; one is {_ARI}<app>/<environment>"
            )
        if app.lower() != self._app_id:
            raise ConfigurationError("environments", f"{entry!r} is not of the app {self._app_id}")
        return uuid

    def _refresh(self, known: _Known, names: Sequence[str]) -> None:
        """Look the names up; go on with older knowledge where the gateway cannot be asked just now."""
        try:
            known.learn(self._look_up(), self._clock())
            known.missing = {name: self._clock() for name in names if not known.id_of(name)}
        except RetryableError as error:
            if not all(known.id_of(name) for name in names):
                raise
            known.tried = self._clock()
            log.warning(
                "Environment ids of %s are those looked up at %s: %s", self._app_id, known.seen, error
            )

    def _name(self, known: _Known, uuids: Sequence[str]) -> None:
        """Settle for good how environments that were configured by their id are called."""
        if not all(uuid in known.ids.values() for uuid in uuids):
            try:
                known.learn(self._look_up(), self._clock())
            except (ConfigurationError, CredentialsRefused):
                raise  # no answer of the gateway's about these environments
            except ForgeError as error:
                log.warning("Exported without a name for good: environments %s: %s", ", ".join(uuids), error)
        name_of = {uuid: name for name, uuid in known.ids.items()}
        known.names |= {uuid: name_of.get(uuid) for uuid in uuids}

    def _by_name(self, known: _Known, name: str) -> Environment:
        uuid = known.id_of(name)
        if uuid is None:
            there_are = ", ".join(sorted(known.ids)) or "none"
            raise ConfigurationError(
                "environments", f"there is no {name!r} in app {self._app_id}; there are: {there_are}"
            )
        # Called as it is configured, whatever has become of the environment since.
        return Environment(uuid, known.name_of(name))


class _Known(msgspec.Struct):
    """What is remembered of an app.

    Attributes:
        seen: When its environments were last looked up.
        ids: UUIDs of its environments by their name, as of then.
        names: How environments configured by their UUID are called, for good; None for not at all.
        missing: Names that a look-up did not find, and when.
        tried: When a look-up failed for which older knowledge served.
    """

    seen: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    ids: dict[str, str] = {}
    names: dict[str, str | None] = {}
    missing: dict[str, Annotated[dt.datetime, msgspec.Meta(tz=True)]] = {}
    tried: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None

    @classmethod
    def load(cls, memory: StateStore) -> _Known:
        try:
            return msgspec.convert(memory.load(), cls)
        except msgspec.ValidationError:
            log.warning("What was remembered of the app's environments is damaged; they are looked up again")
            return cls()

    def save(self, memory: StateStore) -> None:
        # Another task may have settled a name during this one's look-up: the first word holds.
        self.names = {**self.names, **_Known.load(memory).names}
        memory.save(msgspec.to_builtins(self))

    def learn(self, environments: list[Environment], now: dt.datetime) -> None:
        self.seen = now
        self.ids = {environment.name: environment.id for environment in environments if environment.name}

    def is_fresh(self, now: dt.datetime) -> bool:
        return self.seen is not None and self.seen >= now - REMEMBERED

    def was_tried(self, now: dt.datetime) -> bool:
        return self.tried is not None and self.tried > now - LEFT_ALONE

    def is_missing(self, name: str, now: dt.datetime) -> bool:
        return not self.id_of(name) and name in self.missing and self.missing[name] > now - LEFT_ALONE

    def merge(self, other: _Known) -> _Known:
        """Return what both know: the later look-up, and of each name what this one says."""
        later = max(self, other, key=lambda known: known.seen or _NEVER)
        return msgspec.structs.replace(later, names={**other.names, **self.names})

    def id_of(self, name: str) -> str | None:
        return self.ids.get(self.name_of(name))

    @staticmethod
    def name_of(name: str) -> str:
        return _NAME_OF_KEY.get(name, name)


class LayeredStateStore:
    """One memory made of several, such as an Airflow Variable and a file: some callers can use only one.

    Args:
        stores: The first one's word on the name of an environment holds.
    """

    def __init__(self, *stores: StateStore) -> None:
        self._stores = stores
        self._completed = False
        self._unreadable: set[int] = set()

    def load(self) -> dict[str, Any]:
        """Return what they know together. What only some know of names is told to the others, once.

        Raises:
            RetryableError: One cannot be read, and the others know nothing.
        """
        known: dict[int, _Known] = {}
        failure: RetryableError | None = None
        self._unreadable.clear()
        for index, memory in enumerate(self._stores):
            try:
                known[index] = _Known.load(memory)
            except RetryableError as error:
                failure = error
                self._unreadable.add(index)
        merged = functools.reduce(_Known.merge, known.values(), _Known())
        if failure and not merged.seen and not merged.names:
            raise failure
        content: dict[str, Any] = msgspec.to_builtins(merged)
        for index, each in known.items():
            if not self._completed and each.names != merged.names:
                self._stores[index].save(content)
        self._completed = True
        return content

    def save(self, content: dict[str, Any]) -> None:
        """Keep the object in each, but for those that could not be read: they may know more."""
        for index, memory in enumerate(self._stores):
            if index not in self._unreadable:
                memory.save(content)
