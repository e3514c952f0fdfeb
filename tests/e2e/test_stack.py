"""Teams: a search through the servers of docker/compose.yaml, with a login, TLS and S3.

They run as processes with the commands and settings of compose.yaml (compose_servers.py).
"""

from __future__ import annotations

import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command_process import Run
from tests.e2e.compose_servers import Stack, missing, running
from tests.e2e.conftest import make_workplace
from tests.e2e.s3_server import S3Workplace

pytestmark = pytest.mark.slow

ALICE = ("alice", "S3CRET-of-alice")
BOB = ("bob", "S3CRET-of-bob-1")
SEARCH = ("search", "--space", "small.yaml", "--workers", "1", "--trials", "2", "--debug")


@dataclass(frozen=True)
class Team:
    """The running servers, with two users, and what one of them has searched."""

    stack: Stack
    folder: Path
    ray: Path  # what `--debug` keeps of Ray

    def place(self, user: tuple[str, str] | None, **variables: str) -> S3Workplace:
        """The workplace with the environment of a user."""
        login = self.stack.variables(*user) if user else self.stack.variables()
        return S3Workplace(self.folder, None, {**login, **variables})

    def grant(self, user: str, permission: str) -> None:
        """Let a user read or change the experiment."""
        of = {"username": user, "resource_type": "experiment", "resource_id": self.experiment}
        with suppress(urllib.error.HTTPError):  # nothing to revoke
            self.stack.ask_as_admin("3.0/mlflow/users/permissions/revoke", of)
        self.stack.ask_as_admin(
            "3.0/mlflow/users/permissions/grant", {**of, "permission": permission}
        )

    @property
    def experiment(self) -> str:
        """Number of the experiment."""
        answer = self.stack.ask_as_admin("2.0/mlflow/experiments/search", {"max_results": 10})
        (found,) = [e["experiment_id"] for e in answer["experiments"] if e["name"] == "small"]
        return str(found)

    def runs(self) -> list[Any]:
        """The recorded runs, as JSON."""
        body = {"experiment_ids": [self.experiment]}
        return list(self.stack.ask_as_admin("2.0/mlflow/runs/search", body)["runs"])


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("team")
    make_workplace(folder)
    # MLflow has several processes, as there; the sockets of Ray need a short path
    with running(processes=2) as stack, tempfile.TemporaryDirectory(prefix="ray") as ray:
        for user in (ALICE, BOB):
            stack.add_user(*user)
        yield Team(stack, folder, Path(ray))


@pytest.fixture(scope="module")
def searched(team: Team) -> Run:
    """A search of alice."""
    place = team.place(ALICE, RAY_TMPDIR=str(team.ray))
    run = place.fresh(*SEARCH, "--json", "--set", "confirm=false")
    assert run.status == 0, run.err
    return run


def refusal(run: Run) -> str:
    """The sentence with which a command was refused, before anything was made."""
    assert run.status == 2, run.err
    assert "Ray" not in run.err
    assert "Traceback" not in run.err
    (line,) = [line for line in run.err.splitlines() if "tracking store" in line]
    return line


def test_login_is_asked_for(team: Team) -> None:
    needed = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    for user in (None, ("alice", "S3CRET-but-wrong"), ("nobody", ALICE[1])):
        sentence = refusal(team.place(user).refused(*SEARCH[:3]))
        assert needed in sentence
        assert "error 401" in sentence
        assert "S3CRET" not in sentence
    assert not (team.folder / "runs" / "searches").exists()


def test_certificate_must_be_trusted(team: Team) -> None:
    place = team.place(ALICE)
    unknown = {k: v for k, v in place.variables.items() if "CERT_PATH" not in k}
    sentence = refusal(replace(place, variables=unknown).refused(*SEARCH[:3]))
    assert "its certificate is not trusted" in sentence
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in sentence
    gone = team.place(ALICE, MLFLOW_TRACKING_SERVER_CERT_PATH="/nowhere/ca.crt")
    assert "names a file that is not there" in refusal(gone.refused(*SEARCH[:3]))
    other = team.stack.url.replace("localhost", "127.0.0.2")
    sentence = refusal(team.place(ALICE, MLFLOW_TRACKING_URI=other).refused(*SEARCH[:3]))
    assert "its certificate is that of another host" in sentence


def test_server_answers_to_its_own_name_only(team: Team) -> None:
    trust = ssl.create_default_context(cafile=str(team.stack.certificate))
    url = f"{team.stack.url}/api/2.0/mlflow/experiments/search?max_results=1"
    for host, status in (("evil.example", 403), (team.stack.url.removeprefix("https://"), 401)):
        request = urllib.request.Request(url, headers={"Host": host})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=60, context=trust)
        with error.value:
            assert error.value.code == status


def test_search_is_recorded_with_its_artifacts_in_s3(team: Team, searched: Run) -> None:
    tags = [{t["key"]: t["value"] for t in run["data"]["tags"]} for run in team.runs()]
    assert len(tags) == 1 + 2
    assert {each["status"].split()[0] for each in tags} <= {"finished", "stopped"}
    objects = team.stack.bucket()
    names = [Path(key).name for key in objects]
    assert names.count("spec.json") >= 2
    assert {"journal.jsonl", "report.html"} <= set(names)
    assert "the model registry has it as version 1 of small" in searched.err
    replayed = team.place(ALICE).tuner("replay", "--json")
    assert replayed.json["verdict"] == "bit-exact", replayed.err


def test_other_user_sees_nothing_and_may_not_write(team: Team, searched: Run) -> None:
    listed = team.place(BOB).tuner("list", "--json")
    assert "small-1" not in listed.out + listed.err
    sentence = refusal(team.place(BOB).refused(*SEARCH[:3]))
    assert "the user bob may not write to the experiment small" in sentence
    assert "ask its owner for the permission EDIT" in sentence


def test_reader_sees_it_and_may_not_write(team: Team, searched: Run) -> None:
    team.grant(BOB[0], "READ")
    listed = team.place(BOB).tuner("list", "--json")
    assert "small-1" in listed.out
    sentence = refusal(team.place(BOB).refused(*SEARCH[:3]))
    assert "the user bob may not write to the experiment small" in sentence
    team.grant(BOB[0], "EDIT")
    # allowed now: the next check, of the name, refuses
    named = team.place(BOB).refused(*SEARCH[:3], "--name", "small-1", "--home", "another")
    assert "a search called small-1 is recorded already" in named.err


def test_no_secret_is_anywhere(team: Team, searched: Run) -> None:
    """Not in home, record, bucket, servers' logs, or what `--debug` prints and keeps."""
    report = team.place(ALICE).tuner("report", "--out", "report.html", "--debug")
    assert report.status == 0, report.err
    secrets = [ALICE[1], BOB[1], *team.stack.secrets]
    assert len(secrets) == 2 + 6
    texts = {"out": searched.out.encode(), "err": (searched.err + report.err).encode()}
    texts |= {f"log of {n}": team.stack.log(n).encode() for n in ("postgres", "s3", "mlflow")}
    texts |= {f"s3 {key}": value for key, value in team.stack.bucket().items()}
    texts["runs"] = json.dumps(team.runs()).encode()
    for path in (*team.folder.rglob("*"), *team.ray.rglob("*")):
        if path.is_file() and not path.is_symlink():
            texts[str(path)] = path.read_bytes()
    assert len(texts) > 40
    assert any(name.endswith("raylet.out") for name in texts), "Ray's logs are not among them"
    assert [(n, s) for n, text in texts.items() for s in secrets if s.encode() in text] == []
