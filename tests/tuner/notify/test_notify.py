"""Messages about searches, to a receiver that refuses, hangs or is not there."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from tuner.notify.notifier import Notifier, notified
from tuner.notify.outbox import OUTBOX, note

from model.engine.report import Report, Status
from tests.tuner.simulated_search import FACTS, space_of
from tuner.errors import TunerError
from tuner.journal.events import (
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
    TrialFailed,
)
from tuner.journal.journal import Journal
from tuner.notify import notifier as module
from tuner.notify.receivers import SECRET, NotDelivered, notify_file, receivers_of

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes or so.").decode()


class Server:
    """A server that answers with given statuses, then with 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=S3CRET"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv(SECRET, KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_FIRST_DELAY_SECONDS", 0.01)
    receiver = Server()
    yield receiver
    receiver.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "lm-1")
    journal.append(SearchBegun(space_of(tmp_path, "trials: 6"), "", FACTS))
    journal.append(SessionBegun({}, 2, in_order=True))
    yield journal
    journal.close()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def outbox(journal: Journal) -> list[dict[str, Any]]:
    path = journal.path.parent / OUTBOX
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_message_is_signed_as_the_standard_says(receiver: Server, journal: Journal) -> None:
    notifier = Notifier(journal.path.parent, receivers_of([receiver.url]))
    wait_for(lambda: bool(outbox(journal)))
    journal.append(SessionEnded("finished", {"best_val_loss": 3.25, "trials": 6.0}, best=4))
    assert notifier.close() is None
    ((headers, body),) = receiver.got
    payload = Verifier(KEY).verify(body, headers)
    assert payload["type"] == "search.finished"
    assert payload["data"]["text"] == "lm-1 is finished: val_loss 3.2500 in trial 4."
    assert payload["data"]["summary"]["trials"] == 6
    with pytest.raises(WebhookVerificationError):
        Verifier(KEY).verify(body.replace(b"finished", b"defeated"), headers)
    assert b"S3CRET" not in (journal.path.parent / OUTBOX).read_bytes()


def finished(number: int, loss: float, status: Status = Status.FINISHED) -> Reported:
    return Reported(number, Report(str(number), status, 9, 900, loss, loss, 1.0, 0.01))


def test_each_new_champion_is_told_and_no_other_trial(
    receiver: Server, journal: Journal, tmp_path: Path
) -> None:
    """Neither unfinished, worse, diverged nor confirming trials are champions."""
    notifier = Notifier(journal.path.parent, receivers_of([receiver.url]))
    wait_for(lambda: bool(outbox(journal)))
    space = space_of(tmp_path, "trials: 6")
    for number in range(6):
        spec = space.spec(space.defaults(), FACTS, number)
        journal.append(TrialBegun(number, {}, spec, confirms=1 if number == 5 else None))
    for event in (
        finished(0, 4.0), finished(1, 2.0, Status.TRAINING), finished(1, 3.5), finished(2, 3.75),
        finished(3, math.nan, Status.DIVERGED), finished(5, 1.0), finished(4, 3.25),
    ):  # fmt: skip
        journal.append(event)
    journal.append(SessionEnded("finished", {"best_val_loss": math.nan}, best=4))
    assert notifier.close() is None
    *champions, end = [json.loads(body)["data"] for _, body in receiver.got]
    assert [(c["best_trial"], c["value"], c["before"]) for c in champions] == [
        (0, 4.0, None), (1, 3.5, 4.0), (4, 3.25, 3.5),
    ]  # fmt: skip
    assert champions[1]["text"] == (
        "lm-1: trial 1 is the best so far, val_loss 3.5000 (before: 4.0000)."
    )
    assert end["summary"] == {"best_val_loss": None}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 4


def test_refused_message_is_sent_again_with_its_id_by_the_next_driver(
    receiver: Server, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver refuses three times, and the driver is killed in between."""
    monkeypatch.setattr(module, "_END_SECONDS", 0.0)
    receiver.statuses = [503] * 3
    folder, receivers = journal.path.parent, receivers_of([receiver.url])
    killed = Notifier(folder, receivers)
    wait_for(lambda: bool(outbox(journal)))
    journal.append(SessionEnded("interrupted"))
    wait_for(lambda: len(receiver.got) == 1)
    killed._closing.set()  # it says nothing more
    killed._thread.join(20)
    monkeypatch.setattr(module, "_END_SECONDS", 20.0)
    with notified(folder, receivers, pytest.fail):
        pass
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) >= 4
    assert len({*ids}) == 1
    with notified(folder, receivers, pytest.fail):
        pass
    assert len(receiver.got) == len(ids), "what was delivered is not sent again"


def test_dead_receiver_holds_nothing_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_END_SECONDS", 0.3)
    said: list[str] = []
    begun = time.monotonic()
    with notified(journal.path.parent, receivers_of(["http://127.0.0.1:1/S3CRET"]), said.append):
        wait_for(lambda: bool(outbox(journal)))
        journal.append(SessionEnded("failed"))
    assert time.monotonic() - begun < 30
    (line,) = said
    assert line.startswith("not delivered: http://127.0.0.1/…: ")
    assert "'tuner sync lm-1' tries again" in line
    assert "S3CRET" not in line


def test_new_receiver_hears_nothing_of_earlier_sessions(receiver: Server, journal: Journal) -> None:
    journal.append(SessionEnded("interrupted"))
    with notified(journal.path.parent, receivers_of([receiver.url]), pytest.fail):
        wait_for(lambda: bool(outbox(journal)))
    assert receiver.got == []


def test_search_without_news_has_stalled_once(
    receiver: Server, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STALL_SECONDS", 0.2)
    monkeypatch.setattr(module, "_STALL_GAPS", 0.0)
    notifier = Notifier(journal.path.parent, receivers_of([receiver.url]))
    wait_for(lambda: len(receiver.got) == 1)
    time.sleep(0.3)
    assert len(receiver.got) == 1
    journal.append(TrialFailed(0, "news"))
    wait_for(lambda: len(receiver.got) == 2)
    assert notifier.close() is None
    kinds = [json.loads(body)["type"] for _, body in receiver.got]
    assert kinds == ["search.stalled"] * 2
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


def test_receivers_are_those_of_the_command_and_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(SECRET, raising=False)
    assert receivers_of(()) == []
    path = notify_file()
    assert path == tmp_path / "tuner" / "notify.yaml"
    path.parent.mkdir()
    path.write_text("notify: [https://a.example/x, http://b.example/y]\n")
    names = [each.name for each in receivers_of(["http://b.example/y", "https://c.example"])]
    assert names == ["http://b.example/…", "https://c.example/…", "https://a.example/…"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("notify: https://a.example", "must be a mapping with a list of URLs"),
        ("- https://a.example", "must be a mapping with a list of URLs"),
        ("notify: [7]", "must be a mapping with a list of URLs"),
        ("notify: [", "cannot be read"),
        ("notify: !!python/name:os.system", "cannot be read"),
    ],
)
def test_bad_file_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, reason: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    notify_file().parent.mkdir()
    notify_file().write_text(content)
    with pytest.raises(TunerError, match=reason) as caught:
        receivers_of(())
    assert "\n" not in str(caught.value)


def test_bad_url_and_secret_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(TunerError, match="Apprise"):
        receivers_of(["nonsense"])
    monkeypatch.setenv(SECRET, "whsec_!")
    with pytest.raises(TunerError, match=f"{SECRET} is no secret"):
        receivers_of(["https://a.example"])
    monkeypatch.delenv(SECRET)
    (unreachable,) = receivers_of(["http://a.example:99999/x"]) or [None]
    assert unreachable is not None
    with pytest.raises(NotDelivered):
        unreachable.send(module.message_of_stall("lm-1", 60.0, 0.0, "d"))


def test_apprise_delivers(receiver: Server, journal: Journal) -> None:
    url = receiver.url.replace("http://", "json://").partition("?")[0]
    with notified(journal.path.parent, receivers_of([url]), pytest.fail):
        wait_for(lambda: bool(outbox(journal)))
        journal.append(SessionEnded("finished", {"best_val_loss": 3.25}, best=4))
    ((_, body),) = receiver.got
    assert json.loads(body)["message"] == "lm-1 is finished: val_loss 3.2500 in trial 4."


def test_lost_node_is_told_once_with_one_id_also_by_the_next_driver(
    receiver: Server, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first driver is killed before the receiver takes it, and the second sees it, too."""
    monkeypatch.setattr(module, "_END_SECONDS", 0.0)
    receiver.statuses = [503] * 3
    folder, receivers = journal.path.parent, receivers_of([receiver.url])
    early = {"lost": "e" * 56, "name": "before (10.0.0.1)", "time": 1.0}
    lost = {"lost": "f" * 56, "name": "gpu-3 (10.0.0.7)", "time": 1_700_000_000.0}
    note(folder, early)  # nobody had asked for messages
    killed = Notifier(folder, receivers)
    wait_for(lambda: len(outbox(journal)) == 2)
    note(folder, lost)
    wait_for(lambda: len(receiver.got) == 1)
    killed._closing.set()
    killed._thread.join(20)
    monkeypatch.setattr(module, "_END_SECONDS", 20.0)
    for _ in range(2):
        with notified(folder, receivers, pytest.fail):
            note(folder, lost)
            wait_for(lambda: outbox(journal)[-1] == lost or "delivered" in outbox(journal)[-1])
    payloads = {body for _, body in receiver.got}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len([entry for entry in outbox(journal) if "delivered" in entry]) == 1
    (payload,) = map(json.loads, payloads)
    assert payload["type"] == "search.node_lost"
    assert payload["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert payload["data"]["text"].startswith("lm-1: node gpu-3 (10.0.0.7) is lost")
    assert payload["data"]["node"] == "gpu-3 (10.0.0.7)"
