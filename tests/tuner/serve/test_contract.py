"""Every answer of the API is one that its OpenAPI describes, whatever is asked."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.tuner.serve.conftest import Place
from tuner.serve.api.app import API
from tuner.serve.operations.operations import Operations

NOT_CHECKED = [positive_data_acceptance]  # the schema of a space is "a text": most are none


def _operations(place: Place) -> list[Any]:
    schema = schemathesis.openapi.from_asgi(f"{API}/openapi.json", place.client.app)
    return [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of schemathesis' own dependencies
def test_answers_conform_and_none_is_an_error_of_ours(place: Place) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    place.drivers["a"].end("finished")
    place.dispatcher.tick()
    place.dispatcher.ticked = time.monotonic() + 600  # its thread is not begun
    nothing = (sys.executable, "-c", "")  # in place of tuner
    doing = Operations(place.home, place.home.root / "serve", nothing)
    place.client.app.state.operations = doing  # type: ignore[attr-defined]
    operations = _operations(place)
    assert len(operations) > 35
    # users last: with the first one, all further requests need a token
    for operation in operations:
        if "/users" not in operation.path:
            _check_drawn(operation)
    for operation in operations:  # the same of a search that is there
        if "/searches/{name}" in operation.path and operation.method.upper() != "DELETE":
            case = operation.Case(path_parameters={"name": "a", "file": "space.yaml", "number": 0})
            answer = case.call()
            assert answer.status_code in {200, 204, 400, 409, 422}, (operation.path, answer.text)
            case.validate_response(answer, excluded_checks=NOT_CHECKED)
    for operation in operations:
        if "/users" in operation.path:
            _check_drawn(operation)


def _check_drawn(operation: Any) -> None:
    @settings(
        max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, excluded_checks=NOT_CHECKED)

    check()
