"""What goes wrong in the middle of a search: it says so, and keeps what it has."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.command_process import Run
from tests.e2e.conftest import Workplace, journal_lines

pytestmark = pytest.mark.slow


def start(workplace: Workplace, home: Path, *options: str) -> subprocess.Popen[str]:
    command = ("search", "--space", "small.yaml", "--json", "--home", str(home))
    return workplace.start(*command, *options, stdout=subprocess.PIPE)


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the search never said {text}")


def descendants(root: int, program: str) -> list[int]:
    """Processes below a process, by what their command line begins with."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().decode()
                parents = _ancestors(int(entry.name))
            except OSError:
                continue
            if re.match(program, title) and root in parents:
                found.append(int(entry.name))
    return found


def _ancestors(pid: int) -> list[int]:
    chain = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        chain.append(pid)
    return chain


SECRET = "S3CRET"
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
    "HF_TOKEN", "WANDB_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip


@pytest.fixture
def hard_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with credentials and without a home; commands started later get it."""
    for name in CREDENTIALS:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("HOME", "/proc/no-home")  # where not even root can make files


def check_session(folder: Path) -> None:
    """The session of a search that runs is private, and its token is its own."""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert list(folder.glob("ray/session_*/sockets/plasma_store"))


def has_secret(path: Path) -> bool:
    return path.is_file() and SECRET.encode() in path.read_bytes()


def halt_now_and_then(process: subprocess.Popen[str], draw: random.Random) -> None:
    """Stop a worker of a search for a moment, again and again, until the search ends."""
    while process.poll() is None:
        workers = descendants(process.pid, "ray::Worker")
        with suppress(ProcessLookupError, IndexError):
            pid = draw.choice(workers)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(draw.uniform(0.1, 0.6))
            os.kill(pid, signal.SIGCONT)
        time.sleep(draw.uniform(0.0, 0.2))


@pytest.mark.usefixtures("hard_place")
def test_search_survives_the_death_of_a_worker(
    workplace: Workplace, searched: Run, tmp_path: Path
) -> None:
    """The worker is restarted, and its trials continue from their last reports without loss.

    The search is the same as one that nobody disturbed, line by line of its journal, although
    workers are halted at random as well. No secret is on the disk afterwards, in Ray's logs or the
    home.
    """
    with start(workplace, tmp_path, "--workers", "2", "--debug") as process:
        session = Path(wait_for(process, "Ray's logs are kept in").split()[-1])
        check_session(session)
        wait_for(process, "report 2/")
        workers = descendants(process.pid, "ray::Worker")  # the name that Ray gives them
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        halts = threading.Thread(target=halt_now_and_then, args=(process, random.Random(0)))
        halts.start()
        out, err = process.communicate(timeout=200)
        halts.join()
    assert process.returncode == 0, err
    assert "died and restarts" in err
    assert journal_lines(tmp_path, "small-1") == journal_lines(
        workplace.home, searched.json["search"]
    )
    assert list(session.rglob("runtime_env_agent.log"))  # which had the secrets
    assert [path for path in (*session.rglob("*"), *tmp_path.rglob("*")) if has_secret(path)] == []
    shutil.rmtree(session)
    result = json.loads(out.splitlines()[-1])
    shown = workplace.tuner("show", "--home", str(tmp_path), "--json").json
    assert {trial["status"].split(" at ")[0] for trial in shown["trials"]} <= {
        "finished",
        "stopped",
        "diverged",
    }
    assert result["trials"] == 6
    for trial in shown["trials"][:2]:  # those that the worker had
        replayed = workplace.tuner("replay", trial["run"], "--home", str(tmp_path), "--json")
        assert replayed.json["verdict"] == "bit-exact"


def ray_starts(process: subprocess.Popen[str]) -> None:
    """Interrupted from here until Ray has started, the interpreter used to crash."""
    wait_for(process, "starting Ray")
    while not descendants(process.pid, r"\S*/raylet\b"):
        assert process.poll() is None
        time.sleep(0.01)


def sessions(pid: int) -> list[Path]:
    """The private folders of Ray's sessions of a driver, after which Ray names a session."""
    found = Path(tempfile.gettempdir()).glob(f"tuner-*/ray/session_*_{pid}")
    return [path.parents[1] for path in found]


@pytest.mark.parametrize(
    ("wait", "number", "recorded"),
    [
        pytest.param(
            lambda process: wait_for(process, "starting Ray"), signal.SIGTERM, [], id="before Ray"
        ),
        pytest.param(ray_starts, signal.SIGHUP, [], id="in Ray's start"),
        pytest.param(
            lambda process: wait_for(process, "small-1"), signal.SIGINT, ["interrupted"],
            id="as trials start",
        ),
    ],
)  # fmt: skip
def test_search_interrupted_before_any_report_answers_at_once(
    workplace: Workplace,
    tmp_path: Path,
    wait: Callable[[subprocess.Popen[str]], None],
    number: signal.Signals,
    recorded: list[str],
) -> None:
    """It is recorded once it has a name, and then says how to resume it."""
    with start(workplace, tmp_path, "--workers", "1") as process:
        wait(process)
        folders = sessions(process.pid)
        process.send_signal(number)
        assert process.stderr is not None
        answer = process.stderr.readline()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    if recorded:
        assert f"tuner search --resume small-1 --home {tmp_path}" in err
    else:
        texts = ["ending the search, which takes some seconds", "nothing was recorded"]
        said = [text for line in (answer + err).splitlines() for text in texts if text in line]
        # On a busy machine the time of the signal may be over before Ray's start is.
        assert said in (texts, texts[:1], [])
    assert folders or number == signal.SIGTERM  # which came before Ray
    assert not any(folder.exists() for folder in folders)
    assert list_of(workplace, tmp_path, "status") == recorded


def list_of(workplace: Workplace, home: Path, what: str = "name") -> list[str]:
    """The names of the searches in a home, which may have no store yet, or their statuses."""
    listed = workplace.tuner("list", "--home", str(home), "--json")
    if listed.status == 2 and "no search is recorded" in listed.err:
        return []
    return [search[what] for search in listed.json["searches"]]


def test_search_that_does_not_fit_its_data_leaves_no_record(
    workplace: Workplace, tmp_path: Path
) -> None:
    """One epoch turns out to be shorter than the warm-up only when the tokens are counted."""
    text = (workplace.folder / "small.yaml").read_text(encoding="utf-8")
    text = text.replace("tokens: 12000, ", "").replace(
        "T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}", "T_warmup: 170\n  N_epoch: 1"
    )
    (workplace.folder / "short.yaml").write_text(text, encoding="utf-8")
    checked = workplace.tuner("validate", "--space", "short.yaml")
    assert checked.status == 2
    assert "training tokens, T_warmup must not exceed" in checked.err
    run = workplace.refused("search", "--space", "short.yaml", "--home", str(tmp_path))
    assert "does not fit its data: T_warmup must not exceed" in run.err
    assert "Traceback" not in run.err
    assert list_of(workplace, tmp_path) == []


def test_search_on_bad_data_leaves_no_record(workplace: Workplace, tmp_path: Path) -> None:
    space = workplace.folder / "bad.yaml"
    text = (workplace.folder / "small.yaml").read_text(encoding="utf-8")
    (workplace.folder / "latin.txt").write_bytes("caf\u00e9".encode("latin-1") * 400)
    space.write_text(text.replace("files: texts", "files: latin.txt"), encoding="utf-8")
    run = workplace.refused("search", "--space", "bad.yaml", "--home", str(tmp_path))
    assert "latin.txt is not UTF-8 at byte 3" in run.err
    assert list_of(workplace, tmp_path) == []
