from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from tuner.commands.doctor import run_checks
from tuner.errors import StoreError
from tuner.tracking.store import reason_of, store_errors


@pytest.mark.parametrize("code", [401, 403])
def test_refused_login_names_the_credentials(code: int) -> None:
    error = MlflowException(f"API request to endpoint /x failed with error code {code} != 200.")
    assert reason_of(error).startswith(
        f"it answers with error {code}: set MLFLOW_TRACKING_USERNAME"
    )
    assert "MLFLOW_TRACKING_PASSWORD" in reason_of(error)


def test_other_answers_are_named_by_number() -> None:
    error = MlflowException("API request failed with error code 500 != 200.")
    assert reason_of(error) == "it answers with error 500"


def test_doctor_does_not_send_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(home: object) -> str:
        with store_errors("http://x"):
            raise OSError("Connection refused")

    monkeypatch.setattr("tuner.commands.doctor.CHECKS", {"store": check})
    from rich.console import Console

    from tuner.home import Home

    passed, text = run_checks(Console(quiet=True), Home.of("x"))["store"]
    assert not passed
    assert text == "the tracking store http://x cannot be used: it refuses connections"
    with pytest.raises(StoreError, match="check it with 'tuner doctor'"):
        check(None)
