from __future__ import annotations

import copy
import pickle
import re

import pytest

from airflow_provider_forge import exceptions
from airflow_provider_forge.exceptions import (
    ConfigurationError,
    ExportRefused,
    FinalError,
    ForgeError,
    PointsRejected,
    ReceiverUnavailable,
    RequestTooLarge,
    RetryableError,
)

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]
LEAVES = [cls for cls in CLASSES if not any(cls in other.__bases__ for other in CLASSES)]


def one_of(cls: type[ForgeError]) -> ForgeError:
    """An error with every attribute that its class has."""
    if cls is ConfigurationError:
        return cls("app_id", "is missing")
    if cls is PointsRejected:
        return cls("rejected", rejected=3)
    if issubclass(cls, ExportRefused):
        return cls("refused", status=413, maybe_stored=True)
    if cls is ReceiverUnavailable:
        return cls("failed", retry_after=7.5, maybe_stored=True)
    if issubclass(cls, RetryableError):
        return cls("failed", retry_after=7.5, request_id="abc-123")
    return cls("failed", request_id="abc-123")


def test_every_error_class_of_the_module_is_exported():
    classes = (each for each in vars(exceptions).values() if isinstance(each, type))
    defined = {each.__name__ for each in classes if issubclass(each, ForgeError)}
    assert defined == set(exceptions.__all__)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn, ancestors = {}, []
    for line in re.findall(r"^ {4}((?:[│├└─ ]* )?[A-Z]\w+)", exceptions.__doc__, re.MULTILINE):
        name = line.split()[-1]
        depth = (len(line) - len(name)) // 4
        ancestors[depth:] = [name]
        drawn[name] = ancestors[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", LEAVES)
def test_every_error_is_either_final_or_retryable(cls):
    assert issubclass(cls, FinalError) != issubclass(cls, RetryableError)
    assert hasattr(one_of(cls), "retry_after") == issubclass(cls, RetryableError)


def test_a_configuration_error_is_a_value_error_that_names_its_field():
    error = ConfigurationError("app_id", "is missing")
    assert isinstance(error, ValueError)
    assert (str(error), error.field, error.problem) == ("app_id: is missing", "app_id", "is missing")


def test_a_message_ends_with_the_request_id_if_there_is_one():
    assert str(ForgeError("It failed", request_id="abc-123")) == "It failed (request id abc-123)"
    assert str(ForgeError("It failed")) == "It failed"
    assert ForgeError("It failed").request_id is None
    assert RetryableError("It failed").retry_after is None


def test_a_long_message_is_shown_with_its_beginning_and_its_end():
    """Thousands of environments in one, or what a server says over and over."""
    message = "It failed: " + "of no use, " * 10_000 + "so tell the administrator"
    error = ForgeError(message, request_id="abc-123")
    assert len(error.message) <= exceptions.MAX_MESSAGE
    assert error.message.startswith("It failed: of no use")
    assert str(error).endswith("so tell the administrator (request id abc-123)")
    assert len(ConfigurationError("app_id", message).problem) <= exceptions.MAX_MESSAGE
    assert ForgeError("x" * exceptions.MAX_MESSAGE).message == "x" * exceptions.MAX_MESSAGE


def test_by_default_nothing_was_stored_and_there_is_no_status():
    for cls in (ExportRefused, RequestTooLarge):
        assert (cls("refused").status, cls("refused").maybe_stored) == (None, False)
    assert ReceiverUnavailable("failed").maybe_stored is False


# Airflow sends errors from process to process; deepcopy goes the same way.
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "round_trip", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_an_error_survives_pickling_with_all_its_attributes(cls, round_trip):
    error = one_of(cls)
    back = round_trip(error)
    assert type(back) is cls
    assert vars(back) == vars(error)
    assert (str(back), repr(back), back.args) == (str(error), repr(error), error.args)
