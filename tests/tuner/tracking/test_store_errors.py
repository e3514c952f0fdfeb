from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from tuner.errors import StoreError
from tuner.home.home import Home
from tuner.housekeeping.installation import check_installation
from tuner.tracking.store import check_write, open_client, reading_errors, reason_of, store_errors


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "(Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] "
            "certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)')))",
            "its certificate is not trusted: name the file of its authority in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
            "verify failed: Hostname mismatch, certificate is not valid for 'a'. (_ssl.c:1006)'))",
            "its certificate is that of another host: use the name for which it was made",
        ),
        (
            "Could not find a suitable TLS CA certificate bundle, invalid path: /nowhere/ca.crt",
            "MLFLOW_TRACKING_SERVER_CERT_PATH names a file that is not there",
        ),
        (
            "API request to endpoint /x failed with error code 403 != 200. Response body: "
            "'Invalid Host header - possible DNS rebinding attack detected'",
            "it is not called so: add host and port of MLFLOW_TRACKING_URI to its --allowed-hosts",
        ),
    ],
)
def test_refused_connection_says_what_to_set(text: str, reason: str) -> None:
    assert reason_of(MlflowException(text)) == reason


def test_database_of_a_newer_mlflow_says_what_to_upgrade() -> None:
    """MLflow passes on an error of Alembic, whose class says nothing to a user."""
    said = "cannot be used: a newer MLflow made it: upgrade this one with 'pip install --upgrade"
    with pytest.raises(StoreError, match=said), reading_errors("sqlite:///mlflow.db"):
        raise RuntimeError("Can't locate revision identified by 'dc11669786a5'")


@pytest.mark.slow
def test_check_of_permission_keeps_the_experiments(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = open_client(uri)
    number = client.create_experiment("mine", tags={"a": "b"})
    for experiment in ("mine", "mine", "absent"):
        check_write(client, uri, experiment)
    assert {e.name for e in client.search_experiments()} == {"Default", "mine"}
    assert client.get_experiment(number).tags.items() >= {"a": "b", "tuner.space": "mine"}.items()


def test_doctor_does_not_send_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(home: object) -> str:
        with store_errors("http://x"):
            raise OSError("Connection refused")

    monkeypatch.setattr("tuner.housekeeping.installation.CHECKS", {"store": check})
    (result,) = check_installation(Home.of("x"))
    assert not result.passed
    assert result.text == "the tracking store http://x cannot be used: it refuses connections"
    with pytest.raises(StoreError, match="check it with 'tuner doctor'"):
        check(None)
