from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    ConfigurationError,
    CredentialsBlocked,
    CredentialsRefused,
    ForgeError,
    GatewayUnavailable,
    LedgerUnavailable,
    QueryRefused,
    RateLimited,
)
from airflow_provider_forge.gateway.environments import (
    LOOK_UP_PAUSE,
    Environment,
    EnvironmentDirectory,
    LayeredStateStore,
)

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
OTHER_APP = "11111111-2222-4333-8444-555555555555"
DEVELOPMENT, STAGING, PRODUCTION, CUSTOM, NEW = (
    f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abcde"
)

REFUSALS = [CredentialsRefused, AccessForbidden, QueryRefused]
OUTAGES = [GatewayUnavailable, RateLimited, BrokenAnswer]


def ari(environment: str, app: str = APP) -> str:
    return f"ari:cloud:ecosystem::environment/{app}/{environment}"


class Memory:
    """As an Airflow Variable: text, and a count of how often it was written."""

    def __init__(self) -> None:
        self.text = "{}"
        self.saved = 0

    def load(self) -> dict[str, Any]:
        return json.loads(self.text)

    def save(self, content: dict[str, Any]) -> None:
        self.text = json.dumps(content)
        self.saved += 1


class Atlassian:
    """The app's environments, and how often somebody looked."""

    def __init__(self) -> None:
        self.environments = [
            Environment(DEVELOPMENT, "development"),
            Environment(STAGING, "staging"),
            Environment(PRODUCTION, "production"),
            Environment(CUSTOM, "feature-x"),
        ]
        self.failure: ForgeError | None = None
        self.look_ups = 0

    def look_up(self) -> list[Environment]:
        self.look_ups += 1
        if self.failure:
            raise self.failure
        return list(self.environments)

    def recreate(self, name: str, new_id: str) -> None:
        kept = [each for each in self.environments if each.name != name]
        self.environments = [*kept, Environment(new_id, name)]

    def rename(self, environment_id: str, name: str) -> None:
        kept = [each for each in self.environments if each.id != environment_id]
        self.environments = [*kept, Environment(environment_id, name)]


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def atlassian():
    return Atlassian()


@pytest.fixture
def find(atlassian, memory, clock):
    """Look for environments as each task does: with a directory of its own over the common memory."""
    return lambda *wanted: EnvironmentDirectory(APP, atlassian.look_up, memory, clock).find(wanted)


@pytest.mark.parametrize(
    ("ari_or_id", "key", "kind", "environment"),
    [
        (PRODUCTION, "production", "PRODUCTION", Environment(PRODUCTION, "production")),
        (ari(STAGING), "staging", "STAGING", Environment(STAGING, "staging")),
        # Atlassian's command line tool says `development` where the gateway says `default`.
        (DEVELOPMENT.upper(), "default", "DEVELOPMENT", Environment(DEVELOPMENT, "development")),
        # A custom environment goes by its key: there can be several of type DEVELOPMENT.
        (ari(CUSTOM), "feature-x", "DEVELOPMENT", Environment(CUSTOM, "feature-x")),
    ],
)
def test_the_gateways_environment_has_a_uuid_and_a_name(ari_or_id, key, kind, environment):
    assert Environment.from_gateway(ari_or_id, key, kind) == environment


@pytest.mark.parametrize(
    ("wanted", "environment"),
    [
        ("production", Environment(PRODUCTION, "production")),
        ("development", Environment(DEVELOPMENT, "development")),
        ("default", Environment(DEVELOPMENT, "development")),
        ("feature-x", Environment(CUSTOM, "feature-x")),
        (STAGING, Environment(STAGING, "staging")),
        (STAGING.upper(), Environment(STAGING, "staging")),
        (ari(STAGING), Environment(STAGING, "staging")),
        (ari(STAGING, APP.upper()), Environment(STAGING, "staging")),
    ],
)
def test_an_environment_is_found_by_name_key_uuid_and_ari(find, atlassian, wanted, environment):
    assert find(wanted) == (environment,)
    assert atlassian.look_ups == 1


def test_several_are_found_in_one_look_up_in_their_order(find, atlassian):
    found = find("staging", CUSTOM, "production")
    assert [each.name for each in found] == ["staging", "feature-x", "production"]
    assert atlassian.look_ups == 1


@pytest.mark.parametrize(
    "twice",
    [
        ("production", "production"),
        ("default", "development"),
        ("production", PRODUCTION),
        (ari(PRODUCTION), PRODUCTION, "production"),
    ],
)
def test_one_that_is_meant_twice_is_found_once(find, twice):
    assert len(find(*twice)) == 1


def test_one_that_is_meant_by_id_and_by_name_is_one_even_if_the_names_differ(find, atlassian):
    find(PRODUCTION)
    atlassian.rename(PRODUCTION, "prod")
    assert [each.id for each in find(PRODUCTION, "prod")] == [PRODUCTION]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (ari(PRODUCTION, OTHER_APP), APP),
        (f"ari:cloud:ecosystem::environment/{APP}", "<app>/<environment>"),
        (f"ari:cloud:ecosystem::environment/{APP}/production", "<app>/<environment>"),
        (ari(f"{PRODUCTION}/{PRODUCTION}"), "<app>/<environment>"),
        (f"ari:cloud:ecosystem::app/{APP}", "<app>/<environment>"),
        ("ari:", "<app>/<environment>"),
    ],
)
def test_a_foreign_or_malformed_ari_is_refused_without_a_look_up(find, atlassian, wrong, words):
    with pytest.raises(ConfigurationError) as caught:
        find("production", wrong)
    assert caught.value.field == "environments"
    assert wrong in str(caught.value)
    assert words in str(caught.value)
    assert atlassian.look_ups == 0


@pytest.mark.parametrize("unknown", ["prodution", "Production", DEVELOPMENT[:-1], ""])
def test_an_unknown_name_is_refused_with_a_list_of_those_there_are(find, unknown):
    with pytest.raises(ConfigurationError) as caught:
        find(unknown)
    assert caught.value.field == "environments"
    assert repr(unknown) in str(caught.value)
    assert "There are: development, feature-x, production, staging" in str(caught.value)


def test_an_app_without_environments_is_named(find, atlassian):
    atlassian.environments = []
    with pytest.raises(ConfigurationError, match="There are: none"):
        find("production")


def test_a_name_is_cached_for_a_day(find, atlassian, memory, clock):
    first = find("production")
    clock.advance(days=1, seconds=-1)
    assert find("production") == first
    assert (atlassian.look_ups, memory.saved) == (1, 1)
    clock.advance(seconds=1)
    assert find("production") == first
    assert (atlassian.look_ups, memory.saved) == (2, 2)


def test_a_look_up_caches_the_other_names_too(find, atlassian):
    find("production")
    find("staging")
    find("default")
    assert atlassian.look_ups == 1


def test_a_name_missing_in_the_cache_is_looked_up_at_once(find, atlassian):
    find("production")
    atlassian.environments.append(Environment(NEW, "made-later"))
    assert find("made-later") == (Environment(NEW, "made-later"),)
    assert atlassian.look_ups == 2


def test_an_environment_recreated_under_its_old_name_is_found_within_a_day(find, atlassian, clock):
    assert find("staging") == (Environment(STAGING, "staging"),)
    atlassian.recreate("staging", NEW)
    clock.advance(hours=23)
    assert find("staging") == (Environment(STAGING, "staging"),)
    clock.advance(hours=2)
    assert find("staging") == (Environment(NEW, "staging"),)


def test_a_name_that_is_gone_after_a_day_is_unknown(find, atlassian, clock):
    find("feature-x")
    atlassian.rename(CUSTOM, "feature-y")
    clock.advance(days=2)
    with pytest.raises(ConfigurationError, match="feature-y"):
        find("feature-x")


@pytest.mark.parametrize("failure", OUTAGES)
def test_old_knowledge_serves_while_the_gateway_is_unavailable(find, atlassian, clock, caplog, failure):
    find("production")
    atlassian.failure = failure("down", request_id="abc-123")
    clock.advance(days=5)
    assert find("production") == (Environment(PRODUCTION, "production"),)
    assert "request id abc-123" in caplog.text
    # A later task tries again: what is old does not become fresh by being used.
    atlassian.failure = None
    atlassian.recreate("production", NEW)
    clock.advance(seconds=LOOK_UP_PAUSE.total_seconds())
    assert find("production") == (Environment(NEW, "production"),)


@pytest.mark.parametrize("failure", REFUSALS)
def test_old_knowledge_does_not_serve_once_the_account_is_refused(find, atlassian, clock, failure):
    find("production")
    atlassian.failure = failure("no")
    clock.advance(days=2)
    with pytest.raises(failure):
        find("production")


@pytest.mark.parametrize("failure", OUTAGES + REFUSALS)
def test_an_unknown_name_requires_the_gateway(find, atlassian, failure):
    atlassian.failure = failure("no")
    with pytest.raises(failure):
        find("production")


@pytest.mark.parametrize("failure", OUTAGES)
def test_old_knowledge_that_lacks_a_name_does_not_serve(find, atlassian, clock, failure):
    find("production")
    atlassian.failure = failure("down")
    clock.advance(days=2)
    with pytest.raises(failure):
        find("production", "made-later")


# How an environment configured by its id is called is part of each series' identity: whatever the first
# window was exported with stays, "not known" included.


def test_an_id_that_was_found_keeps_its_name_for_good(find, atlassian, clock):
    assert find(PRODUCTION) == (Environment(PRODUCTION, "production"),)
    atlassian.rename(PRODUCTION, "renamed")
    clock.advance(days=400)
    assert find(PRODUCTION) == (Environment(PRODUCTION, "production"),)
    atlassian.failure = CredentialsRefused("no")
    assert find(PRODUCTION) == (Environment(PRODUCTION, "production"),)
    assert atlassian.look_ups == 1


def test_an_id_that_was_not_found_stays_without_a_name(find, atlassian, clock):
    assert find(NEW) == (Environment(NEW, None),)
    atlassian.environments.append(Environment(NEW, "made-later"))
    clock.advance(days=2)
    assert find(NEW) == (Environment(NEW, None),)
    assert atlassian.look_ups == 1


@pytest.mark.parametrize("failure", [*OUTAGES, AccessForbidden, QueryRefused])
def test_an_id_whose_look_up_failed_stays_without_a_name(find, atlassian, clock, caplog, failure):
    atlassian.failure = failure("no", request_id="abc-123")
    assert find(PRODUCTION) == (Environment(PRODUCTION, None),)
    assert "request id abc-123" in caplog.text
    atlassian.failure = None
    clock.advance(days=2)
    assert find(PRODUCTION) == (Environment(PRODUCTION, None),)
    assert atlassian.look_ups == 1


@pytest.mark.parametrize("failure", [CredentialsBlocked, CredentialsRefused])
def test_with_bad_credentials_nothing_is_exported_and_so_nothing_settled(find, atlassian, failure):
    atlassian.failure = failure("no")
    with pytest.raises(failure):
        find(PRODUCTION)
    atlassian.failure = None
    assert find(PRODUCTION) == (Environment(PRODUCTION, "production"),)


def test_a_settled_id_keeps_its_name_when_names_are_looked_up_again(find, atlassian, clock):
    find(PRODUCTION)
    atlassian.rename(PRODUCTION, "renamed")
    clock.advance(days=2)
    assert find(PRODUCTION, "staging")[0] == Environment(PRODUCTION, "production")
    assert atlassian.look_ups == 2


def test_an_id_gets_its_name_from_the_cache(find, atlassian):
    find("production")
    assert find(STAGING) == (Environment(STAGING, "staging"),)
    assert atlassian.look_ups == 1


def test_a_name_is_exported_as_it_is_configured(find, atlassian):
    atlassian.failure = GatewayUnavailable("down")
    assert find(PRODUCTION) == (Environment(PRODUCTION, None),)
    atlassian.failure = None
    assert find("production") == (Environment(PRODUCTION, "production"),)


def test_a_name_determined_during_another_tasks_look_up_holds_for_both(find, atlassian, memory, clock):
    """A look-up can wait a minute at the limiter, and catchup starts several tasks at once."""

    def other_task_fails_meanwhile() -> list[Environment]:
        atlassian.failure = GatewayUnavailable("down")
        assert find(PRODUCTION) == (Environment(PRODUCTION, None),)
        atlassian.failure = None
        return atlassian.look_up()

    directory = EnvironmentDirectory(APP, other_task_fails_meanwhile, memory, clock)
    assert directory.find([PRODUCTION]) == (Environment(PRODUCTION, None),)
    assert find(PRODUCTION) == (Environment(PRODUCTION, None),)


@pytest.mark.parametrize("other", [STAGING, "staging"])
def test_a_name_determined_by_a_task_is_not_lost_to_another_tasks_look_up(
    find, atlassian, memory, clock, other
):
    def other_task_settles_meanwhile() -> list[Environment]:
        find(PRODUCTION)
        atlassian.rename(PRODUCTION, "renamed")
        return atlassian.look_up()

    EnvironmentDirectory(APP, other_task_settles_meanwhile, memory, clock).find([other])
    assert find(PRODUCTION) == (Environment(PRODUCTION, "production"),)


def test_the_cache_is_written_only_if_it_has_changed(find, memory):
    find("production", STAGING)
    find("staging", PRODUCTION)
    written = memory.saved
    find("staging", PRODUCTION, STAGING)
    assert memory.saved == written


@pytest.mark.parametrize(
    "damaged",
    [
        {"seen": "yesterday", "ids": {"production": PRODUCTION}, "names": {}},
        {"seen": 5, "ids": {"production": PRODUCTION}, "names": {}},
        {"seen": "2026-03-10T20:00:00", "ids": {"production": PRODUCTION}, "names": {}},
        {"seen": None, "ids": None, "names": None},
        {"seen": None, "ids": [1], "names": "production"},
        {"ids": {}},
        {"something": "else"},
    ],
)
@pytest.mark.parametrize("wanted", ["production", PRODUCTION])
def test_a_damaged_cache_counts_as_empty(find, memory, damaged, wanted):
    memory.text = json.dumps(damaged)
    assert find(wanted) == (Environment(PRODUCTION, "production"),)


def test_a_clock_that_was_put_back_a_little_makes_nothing_old(find, atlassian, clock):
    find("production")
    clock.now -= timedelta(minutes=1)
    find("production")
    assert atlassian.look_ups == 1


# What is not looked up again for each window


def test_a_failed_look_up_is_not_repeated_for_a_while(find, atlassian, clock):
    find("production")
    atlassian.failure = GatewayUnavailable("down")
    clock.advance(days=5)
    for _ in range(3):
        assert find("production")
    assert atlassian.look_ups == 2
    clock.advance(seconds=LOOK_UP_PAUSE.total_seconds())
    find("production")
    assert atlassian.look_ups == 3


def test_a_name_that_was_not_found_is_left_alone_for_a_while(find, atlassian, clock):
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="there is no 'prod'"):
            find("prod")
    assert atlassian.look_ups == 1
    assert find("production", "staging"), "nobody has to wait for that"
    assert atlassian.look_ups == 1
    atlassian.environments.append(Environment(NEW, "prod"))
    clock.advance(seconds=LOOK_UP_PAUSE.total_seconds())
    assert find("prod") == (Environment(NEW, "prod"),)


def test_what_was_looked_up_while_the_clock_was_ahead_is_looked_up_again(find, atlassian, clock):
    clock.advance(days=3650)
    find("production")
    with pytest.raises(ConfigurationError, match="there is no 'prod'"):
        find("prod")
    clock.advance(days=-3650)
    atlassian.recreate("production", NEW)
    assert find("production") == (Environment(NEW, "production"),)
    atlassian.environments.append(Environment(CUSTOM, "prod"))
    assert find("prod") == (Environment(CUSTOM, "prod"),)


def test_a_look_up_that_failed_while_the_clock_was_ahead_is_repeated(find, atlassian, clock):
    find("production")
    atlassian.failure = GatewayUnavailable("down")
    clock.advance(days=3650)
    find("production")
    clock.advance(days=-3649)
    atlassian.failure = None
    atlassian.recreate("production", NEW)
    assert find("production") == (Environment(NEW, "production"),)


def test_a_waiting_task_uses_the_look_up_of_another(find, atlassian, memory, clock):
    @contextlib.contextmanager
    def turn():
        find("staging", PRODUCTION)
        yield

    directory = EnvironmentDirectory(APP, atlassian.look_up, memory, clock, lock=turn)
    assert directory.find(["production", PRODUCTION])
    assert atlassian.look_ups == 1


# Several memories


class Unreadable(Memory):
    def load(self) -> dict[str, Any]:
        raise LedgerUnavailable("cannot be read")


def test_a_name_in_only_one_of_several_stores_is_known(atlassian, clock):
    """Outside of a task, or for another team, there is no Variable."""

    class Forgetful(Memory):
        def save(self, content: dict[str, Any]) -> None:
            self.saved += 1

    memories = Forgetful(), Memory()
    for _ in range(3):
        directory = EnvironmentDirectory(APP, atlassian.look_up, LayeredStateStore(*memories), clock)
        assert directory.find([PRODUCTION, "staging"])
    assert atlassian.look_ups == 1


def test_the_first_memorys_name_of_an_environment_holds(atlassian, clock):
    first, second = Memory(), Memory()
    first.save({"names": {PRODUCTION: None}})
    second.save({"names": {PRODUCTION: "production", STAGING: "staging"}})
    directory = EnvironmentDirectory(APP, atlassian.look_up, LayeredStateStore(first, second), clock)
    assert directory.find([PRODUCTION, STAGING]) == (Environment(PRODUCTION), Environment(STAGING, "staging"))
    assert atlassian.look_ups == 0
    assert first.load()["names"] == second.load()["names"] == {PRODUCTION: None, STAGING: "staging"}


def test_the_later_look_up_wins(atlassian, clock):
    first, second = Memory(), Memory()
    for memory, ago, uuid in ((first, 2, CUSTOM), (second, 1, PRODUCTION)):
        seen = (clock.now - timedelta(hours=ago)).isoformat()
        memory.save({"seen": seen, "ids": {"production": uuid}})
    directory = EnvironmentDirectory(APP, atlassian.look_up, LayeredStateStore(first, second), clock)
    assert directory.find(["production"]) == (Environment(PRODUCTION, "production"),)


def test_a_store_that_cannot_be_read_is_not_overwritten(atlassian, clock):
    first, second = Unreadable(), Memory()
    directory = EnvironmentDirectory(APP, atlassian.look_up, LayeredStateStore(first, second), clock)
    with pytest.raises(LedgerUnavailable):
        directory.find([PRODUCTION])
    assert atlassian.look_ups == 0
    second.save({"names": {PRODUCTION: "production"}})
    assert directory.find([PRODUCTION, "staging"])
    assert first.saved == 0
    assert second.load()["ids"]
