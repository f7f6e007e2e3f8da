from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import Asset, BaseHook
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_provider_forge.connections.ledger import LARGEST, account_of, open_ledger
from airflow_provider_forge.delivery.ledger import Ledger, Selection
from airflow_provider_forge.delivery.records import CoveredSpan, LedgerRecord, SpanStatus
from airflow_provider_forge.delivery.stores import InMemoryStore, ObjectStore
from airflow_provider_forge.exceptions import LedgerUnavailable, RetryableError
from airflow_provider_forge.files import shared_directory
from airflow_provider_forge.otlp.endpoint import Endpoint, TlsFiles
from airflow_provider_forge.utils import secrets
from airflow_provider_forge.utils.ledger import AssetStore, delivery_asset, find_store
from airflow_provider_forge.utils.runtime import AirflowRuntime

try:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors
except ImportError:  # Airflow before 3.3
    AssetStateStoreAccessors = None

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
OTHER_APP = "a11dfa0b-cf2c-44d1-9080-5c3944961223"
DESTINATION = "https://otlp.example.com/v1/metrics"
RUNTIME = AirflowRuntime(BaseHook)
NOW = dt.datetime(2026, 11, 23, 5, 20, tzinfo=dt.timezone.utc)
ASSET = delivery_asset("forge_default", "otlp_default")
SELECTION = Selection(["production"], ["FORGE_API_REQUEST_COUNT"])
KEY = f"{APP}/5e1f/20261123T0500Z"


class Rows:
    """The rows of one asset, as a task sees them; what goes in and out is JSON."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self.rows[key]) if key in self.rows else None

    def set(self, key: str, value: Any) -> None:
        self.rows[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.rows.pop(key, None)


class Stores:
    """Airflow's `AssetStateStoreAccessors`: by asset, for those of the task."""

    def __init__(self, inlets: list[Asset], outlets: list[Asset] | None = None) -> None:
        self._rows = {asset.name: Rows() for asset in (*inlets, *(outlets or ()))}

    def __getitem__(self, asset: Asset) -> Rows:
        return self._rows[asset.name]


STORES = [Stores, *([AssetStateStoreAccessors] if AssetStateStoreAccessors else [])]


@pytest.fixture
def variables(monkeypatch):
    """Airflow Variables with their descriptions, which cannot be set outside of a task."""
    kept: dict[str, SimpleNamespace] = {}

    def get(key: str, default: Any = None) -> Any:
        return kept[key].value if key in kept else default

    def set_(key: str, value: str, description: str) -> None:
        kept[key] = SimpleNamespace(value=value, description=description)

    monkeypatch.setattr(secrets, "Variable", SimpleNamespace(get=get, set=set_))
    return kept


def deliver_nothing(ledger: Ledger) -> None:
    """Make the ledger write what it writes when a window was empty."""
    start, end = NOW - dt.timedelta(minutes=15), NOW - dt.timedelta(minutes=5)
    with ledger.open_session([], SELECTION, start, end) as page:
        page.record_window()
        page.save()
        page.prune()


# The asset


def test_the_asset_is_named_by_the_connections():
    assert ASSET.name == "forge_metrics:forge_default:otlp_default"


def test_naming_the_asset_explicitly_is_equivalent():
    """Airflow lets two assets of one name, but with two URIs, not both be active."""
    named = Asset("forge_metrics:forge_default:otlp_default")
    assert (named.name, named.uri) == (ASSET.name, ASSET.uri)


# What Airflow 3 takes as the id of a Connection.
CONN_IDS = st.text("abzAZ019_.-", min_size=1, max_size=8)


@settings(deadline=None, derandomize=True, database=None)
@given(one=st.tuples(CONN_IDS, CONN_IDS), other=st.tuples(CONN_IDS, CONN_IDS))
def test_each_pair_of_connections_has_an_asset_of_its_own(one, other):
    assume(one != other)
    asset, twin, another = delivery_asset(*one), delivery_asset(*one), delivery_asset(*other)
    assert asset == twin
    assert (asset.name, asset.uri) == (twin.name, twin.uri)
    # Airflow lets neither a name nor a URI be of two assets.
    assert asset.name != another.name
    assert asset.uri != another.uri


@pytest.mark.parametrize("conn_id", ["a" * 200, "forge.eu-west_1", "UPPER", "0"])
def test_any_id_of_a_connection_makes_an_asset(conn_id):
    assert conn_id in delivery_asset(conn_id, conn_id).name


# Finding the store


@pytest.mark.parametrize("stores", STORES)
def test_the_store_of_the_asset_is_used(stores):
    found = find_store({"asset_state_store": stores([ASSET], [ASSET])}, ASSET, None)
    assert isinstance(found, AssetStore)
    assert ASSET.name in found.name
    assert found.largest == LARGEST < 65_535


@pytest.mark.parametrize("stores", STORES)
def test_a_task_that_has_the_asset_as_outlet_only_has_its_store_as_well(stores):
    assert find_store({"asset_state_store": stores([], [ASSET])}, ASSET, None) is not None


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"asset_state_store": Stores([ASSET])},
        {"asset_state_store": Stores([])},
    ],
    ids=["before 3.3", "3.3", "mapped"],
)
def test_the_users_url_wins(context, tmp_path):
    found = find_store(context, ASSET, f"file://{tmp_path}/ledger")
    assert isinstance(found, ObjectStore)
    assert found.largest is None
    found.set("head", {"a": 1})
    assert json.loads((tmp_path / "ledger" / "head.json").read_bytes()) == {"a": 1}


def test_before_airflow_3_3_there_is_none():
    assert find_store({}, ASSET, None) is None
    assert find_store({"asset_state_store": None}, ASSET, None) is None


@pytest.mark.parametrize("url", [None, ""])
@pytest.mark.parametrize("stores", STORES)
def test_a_mapped_task_that_has_not_the_asset_has_none(stores, url):
    """Airflow gives it only those inlets and outlets that `partial()` names."""
    other = delivery_asset("forge_default", "otlp_other")
    for context in ({"asset_state_store": stores([])}, {"asset_state_store": stores([other], [other])}):
        assert find_store(context, ASSET, url) is None


# Airflow's store


def test_a_stored_value_can_be_read():
    rows = Rows()
    store = AssetStore(rows, "the asset a")
    assert store.get(KEY) is None
    store.delete(KEY)
    for value in ({"a": [1, None]}, {}, {"b": "ü"}):
        store.set(KEY, value)
        assert store.get(KEY) == value
        assert AssetStore(rows, "the asset a").get(KEY) == value
    assert store.get("other") is None
    store.delete(KEY)
    assert store.get(KEY) is None


@pytest.mark.parametrize("value", [[1], "text", 5, True, {"a": ["\ud800"]}])
def test_a_foreign_value_counts_as_damaged(value):
    rows = Rows()
    rows.set(KEY, value)
    assert AssetStore(rows, "the asset a").get(KEY) == {}


@pytest.mark.parametrize("verb", ["get", "set", "delete"])
def test_an_error_of_airflows_can_be_tried_again(verb):
    error = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))

    def refuse(*_: Any) -> None:
        raise error

    store = AssetStore(SimpleNamespace(**{verb: refuse}), "the asset a")
    with pytest.raises(LedgerUnavailable, match=f"did not {verb} .*the asset a .*503") as caught:
        getattr(store, verb)(KEY, *([{}] if verb == "set" else []))
    assert isinstance(caught.value, RetryableError)
    assert caught.value.__cause__ is error


def test_an_error_of_another_backend_is_an_outage_as_well():
    """Airflow can be told to keep it anywhere."""

    def fail(key: str) -> None:
        raise TimeoutError("bucket")

    with pytest.raises(LedgerUnavailable, match="TimeoutError: bucket"):
        AssetStore(SimpleNamespace(get=fail), "the asset a").get(KEY)


def test_a_value_is_json_that_airflow_accepts():
    if AssetStateStoreAccessors is None:
        kinds = ()
    else:
        from airflow.sdk.execution_time.comms import SetAssetStateStoreByName

        kinds = (SetAssetStateStoreByName,)
    cell = LedgerRecord(
        covered={"c0ffee": [CoveredSpan(0.0, 300.0, state, 5) for state in SpanStatus]}
    ).to_json(0)
    for kind in kinds:
        sent = kind(name="a", key="b", value=cell).model_dump()["value"]
        assert sent == cell
        assert [type(part[2]) for part in sent["asked"]["c0ffee"]] == [str] * 3
    assert json.loads(json.dumps(cell)) == cell


@pytest.mark.parametrize("metrics", [5, 30])
def test_the_largest_value_is_not_too_large_for_airflow(metrics):
    """Airflow counts the letters of its own JSON, which has spaces."""
    groups = [(f"forge_metric_{metric}", minute) for metric in range(metrics) for minute in range(5)]
    marks = (b"%012d" % number for number in itertools.count())

    def some(number: int) -> Counter[bytes]:
        return Counter(itertools.islice(marks, number))

    fill = 1700 // len(groups)
    cell = LedgerRecord({group: some(fill) for group in groups}, {group: some(fill) for group in groups})
    room = LARGEST - len(json.dumps(cell.to_json(0)))
    cell.acknowledged[groups[0]] += some(room // 16)
    cell.compress(LARGEST, 0)
    assert not cell.digested, "all of it is made use of"
    cell.acknowledged[groups[0]] += some(100)
    cell.compress(LARGEST, 0)
    assert cell.digested
    assert len(json.dumps(cell.to_json(0))) <= LARGEST < 65_535


# Opening the ledger


@pytest.mark.usefixtures("variables")
def test_without_a_store_it_warns_once_and_records_nothing(caplog):
    caplog.set_level(logging.INFO)
    ledger = open_ledger(RUNTIME, None, APP, DESTINATION)
    for _ in range(3):
        deliver_nothing(ledger)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "There is no ledger" in record.getMessage()
    assert "ledger_url" in record.getMessage(), "it says what to do"
    assert isinstance(ledger.store, InMemoryStore)
    assert open_ledger(RUNTIME, None, APP, DESTINATION).store.get(f"{ledger.name}/head") is None


def test_without_a_store_no_sentinel_is_written(variables):
    deliver_nothing(open_ledger(RUNTIME, None, APP, DESTINATION))
    assert variables == {}


def test_with_a_store_there_is_nothing_to_warn_of(variables, caplog):
    store = AssetStore(Rows(), "the asset a")
    ledger = open_ledger(RUNTIME, store, APP, DESTINATION)
    assert ledger.store is store
    deliver_nothing(ledger)
    deliver_nothing(open_ledger(RUNTIME, store, APP, DESTINATION))
    assert caplog.records == []


def test_a_variable_records_that_there_is_a_ledger(variables, caplog):
    ledger = open_ledger(RUNTIME, AssetStore(Rows(), "the asset a"), APP, DESTINATION)
    deliver_nothing(ledger)
    ((key, variable),) = variables.items()
    assert key == f"forge_ledger_{ledger.name.replace('/', '_')}_{SELECTION.name}"
    assert re.fullmatch(r"[\w-]{1,250}", key), "what Airflow takes as a key"
    assert DESTINATION not in variable.description, "a path can hold a secret"
    assert urlsplit(DESTINATION).hostname in variable.description
    assert json.loads(variable.value)["store"] == "the asset a"
    # And so one sees that it was lost.
    deliver_nothing(open_ledger(RUNTIME, AssetStore(Rows(), "the asset b"), APP, DESTINATION))
    assert "the asset a, is not in the asset b" in caplog.text


@pytest.mark.parametrize(
    "destination", [DESTINATION, "http://[::1]:4318/v1/metrics#x-scope-orgid=a%2Fb", "ü" * 3000]
)
def test_the_name_is_one_for_keys_and_for_files(variables, destination):
    ledger = open_ledger(RUNTIME, AssetStore(Rows(), "the asset a"), APP, destination)
    assert re.fullmatch(rf"{APP}/[0-9a-f]{{16}}", ledger.name)
    deliver_nothing(ledger)
    leases = [path.name for path in shared_directory().iterdir()]
    assert leases
    assert all(re.match(rf"\.?{ledger.name.replace('/', '-')}-", name) for name in leases)


def test_the_name_is_the_same_for_good():
    """Another one is another ledger, and everything is sent again."""
    ledger = open_ledger(RUNTIME, AssetStore(Rows(), "the asset a"), APP, DESTINATION)
    assert ledger.name == f"{APP}/6ae4782a8973f70a"


def test_ledgers_differ_by_app_and_destination_only(tmp_path):
    def names(store: Any) -> list[str]:
        return [
            open_ledger(RUNTIME, store, app, destination).name
            for app in (APP, OTHER_APP)
            for destination in (DESTINATION, f"{DESTINATION}#x-scope-orgid=a")
        ]

    all_names = [names(store) for store in (None, AssetStore(Rows(), "the asset a"), ObjectStore(tmp_path))]
    assert len(set(all_names[0])) == 4
    assert all_names[0] == all_names[1] == all_names[2]


@pytest.mark.usefixtures("variables")
def test_two_ledgers_in_one_store_do_not_meet(tmp_path):
    store = ObjectStore(tmp_path / "ledger")
    one, other = (open_ledger(RUNTIME, store, app, DESTINATION) for app in (APP, OTHER_APP))
    deliver_nothing(one)
    assert store.get(f"{one.name}/head")
    assert store.get(f"{other.name}/head") is None


def test_threads_ask_airflow_one_after_the_other():
    """As the supervisor of `dag.test()` wants it, which has one queue for all answers."""

    class Supervisor:
        def __init__(self) -> None:
            self.there = True
            self.never = threading.Event()

        def get(self, key):
            assert self.there
            self.there = False
            # Long enough for another thread, if there were one that did not wait.
            self.never.wait(0.05)
            self.there = True
            return {"key": key}

    store = AssetStore(Supervisor(), "the asset")
    keys = [str(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(store.get, keys)) == [{"key": key} for key in keys]


def test_long_ids_in_other_scripts_make_a_name_that_airflow_accepts():
    long = "試" * 250
    assets = [delivery_asset(long, long), delivery_asset(long, long[1:]), delivery_asset(long[1:], long)]
    assert len({asset.name for asset in assets}) == 3
    assert {len(asset.name) for asset in assets} == {1500}
    assert delivery_asset("a", "ü").name == "forge_metrics:a:%C3%BC"


# Accounts


@pytest.mark.parametrize(
    ("endpoint", "names"),
    [
        (Endpoint(DESTINATION, headers={"Authorization": "Bearer a", "X-Team": "b"}), {"Authorization"}),
        (Endpoint(DESTINATION, headers={"DD-API-KEY": "a"}), {"DD-API-KEY"}),
        (Endpoint(DESTINATION, tls=TlsFiles(cert_file=__file__, key_file=__file__)), {"cert_file"}),
        (Endpoint(DESTINATION, headers={"X-Team": "b"}), None),
        (Endpoint(DESTINATION, headers={"Authorization": "a"}, tenant="mine"), None),
        (Endpoint(DESTINATION, headers={"Authorization": "a", "X-Scope-OrgID": "mine"}), None),
    ],
)
def test_credentials_distinguish_accounts_if_nothing_else_does(endpoint, names):
    account = account_of("otlp_default", endpoint)
    assert (account and set(account.credentials)) == names
