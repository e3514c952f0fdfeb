"""Messages about searches, to a receiver that refuses, hangs or is not there."""

from __future__ import annotations

import base64
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from model.engine.report import Report, Status
from tests.tuner.simulated_search import FACTS, space_of
from tuner.clock import CLOCK, SystemClock
from tuner.errors import TunerError
from tuner.journal.events import (
    MessageSent,
    NodeLost,
    Reported,
    SearchBegun,
    SearchStalled,
    SessionBegun,
    SessionEnded,
    TrialBegun,
)
from tuner.journal.follower import Cursor, Follower
from tuner.journal.journal import Journal, JournalTail
from tuner.notify import projection as module
from tuner.notify import receivers as receivers_module
from tuner.notify.message import message_of_stall
from tuner.notify.projection import MessageProjection, notified
from tuner.notify.receivers import SECRET, NotDelivered, notify_file, receivers_of

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes or so.").decode()


class Server:
    """A server that answers with given statuses, then with 204; perhaps with a location."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.location = ""
        self.awake = threading.Event()
        self.awake.set()
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.awake.wait()
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.end_headers()

            def do_GET(self) -> None:
                receiver.got.append(({"method": "GET"}, b""))
                self.send_response(200)
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


def follow(journal: Journal, url: str, clock: SystemClock = CLOCK) -> Follower:
    """Begin to send the messages of a journal to a receiver, which knows what was there before."""
    (receiver,) = receivers_of([url])
    folder = journal.path.parent
    follower = Follower(
        MessageProjection(folder.name, receiver), journal.feed(), Cursor(folder, receiver.key),
        from_now=True, clock=clock,
    ).start()  # fmt: skip
    assert follower.flush(20) is None
    return follower


def begin_trials(journal: Journal, folder: Path, number: int = 6) -> None:
    """Begin trials, of which the last one confirms trial 1."""
    space = space_of(folder, "trials: 6")
    for trial in range(number):
        spec = space.spec(space.defaults(), FACTS, trial)
        journal.append(TrialBegun(trial, {}, spec, confirms=1 if trial == 5 else None))


def test_message_is_signed_as_the_standard_says(
    receiver: Server, journal: Journal, tmp_path: Path
) -> None:
    begin_trials(journal, tmp_path)
    follower = follow(journal, receiver.url)
    journal.append(SessionEnded("finished", {"best_val_loss": 3.25, "trials": 6.0}, best=4))
    assert follower.close(20) is None
    ((headers, body),) = receiver.got
    payload = Verifier(KEY).verify(body, headers)
    assert payload["type"] == "search.finished"
    assert payload["data"]["text"] == "lm-1 is finished: val_loss 3.2500 in trial 4."
    assert payload["data"]["summary"]["trials"] == 6
    with pytest.raises(WebhookVerificationError):
        Verifier(KEY).verify(body.replace(b"finished", b"defeated"), headers)
    assert not any(b"S3CRET" in f.read_bytes() for f in (tmp_path / "lm-1" / "cursors").iterdir())


def finished(number: int, loss: float, status: Status = Status.FINISHED) -> Reported:
    return Reported(number, Report(str(number), status, 9, 900, loss, loss, 1.0, 0.01))


def test_each_new_best_trial_is_told_and_no_other(
    receiver: Server, journal: Journal, tmp_path: Path
) -> None:
    """Neither unfinished, worse, diverged nor confirming trials are the best so far."""
    begin_trials(journal, tmp_path)
    follower = follow(journal, receiver.url)
    for event in (
        finished(0, 4.0), finished(1, 2.0, Status.TRAINING), finished(1, 3.5), finished(2, 3.75),
        finished(3, math.nan, Status.DIVERGED), finished(5, 1.0), finished(4, 3.25),
    ):  # fmt: skip
        journal.append(event)
    journal.append(SessionEnded("finished", {"best_val_loss": math.nan}, best=4))
    assert follower.close(20) is None
    *best, end = [json.loads(body)["data"] for _, body in receiver.got]
    assert [(c["best_trial"], c["value"], c["before"]) for c in best] == [
        (0, 4.0, None), (1, 3.5, 4.0), (4, 3.25, 3.5),
    ]  # fmt: skip
    assert best[1]["text"] == "lm-1: trial 1 is the best so far, val_loss 3.5000 (before: 4.0000)."
    assert end["summary"] == {"best_val_loss": None}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 4


def test_refused_message_is_sent_again_with_its_id_by_the_next_driver(
    receiver: Server, journal: Journal
) -> None:
    """The receiver refuses three times, and the driver is killed in between."""
    receiver.statuses = [503] * 3
    killed = follow(journal, receiver.url)
    journal.append(SessionEnded("interrupted"))
    assert "it answers 503" in (killed.flush(0.5) or "")
    assert "it answers 503" in (killed.close(0.0) or "")
    folder, receivers = journal.path.parent, receivers_of([receiver.url])
    with notified(folder, receivers, lambda: JournalTail(folder), pytest.fail):
        pass
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) >= 4
    assert len({*ids}) == 1
    with notified(folder, receivers, lambda: JournalTail(folder), pytest.fail):
        pass
    assert len(receiver.got) == len(ids), "what was delivered is not sent again"


def test_dead_receiver_holds_nothing_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(module, "_END_SECONDS", 0.3)
    said: list[str] = []
    receivers = receivers_of(["http://127.0.0.1:1/S3CRET"])
    with notified(journal.path.parent, receivers, journal.feed, said.append):
        journal.append(SessionEnded("failed"))
    (line,) = said
    assert line.startswith("not delivered: http://127.0.0.1:1/…: ")
    assert "'tuner sync lm-1' tries again" in line
    assert "S3CRET" not in line


def test_new_receiver_hears_nothing_of_earlier_sessions(receiver: Server, journal: Journal) -> None:
    journal.append(SessionEnded("interrupted"))
    receivers = receivers_of([receiver.url])
    with notified(journal.path.parent, receivers, journal.feed, pytest.fail):
        pass
    assert receiver.got == []


def test_news_of_the_driver_are_messages(receiver: Server, journal: Journal) -> None:
    """A search without reports, and a node that is lost."""
    follower = follow(journal, receiver.url)
    journal.append(SearchStalled(960.0, "gpu-7"))
    journal.append(NodeLost("n1", "gpu-8 (10.0.0.8)"))
    journal.append(MessageSent("for the terminal only"))
    assert follower.close(20) is None
    said = [(json.loads(b)["type"], json.loads(b)["data"]["text"]) for _, b in receiver.got]
    assert said == [
        ("search.stalled", "lm-1 has had no news for 16 minutes; its driver runs on gpu-7."),
        (
            "search.node_lost",
            "lm-1: node gpu-8 (10.0.0.8) is lost; its trials go on in other workers, or wait for "
            "one.",
        ),
    ]
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
    for url in (
        "http://[::1", "http://a.example:99999/x", "https://", "http://S3CRET@/x",
        "http://me:S3CRET/x@a.example/", "http://a.example/S3CRET x", "http://a.example/S3CRET?é",
        "http://S3CRET token/x",
    ):  # fmt: skip
        with pytest.raises(TunerError, match=r"--notify https?:\S*… is no URL: ") as caught:
            receivers_of([url])
        assert "\n" not in str(caught.value)
        assert "S3CRET" not in str(caught.value)


MESSAGE = message_of_stall("lm-1", SearchStalled(60.0, "gpu-7"), "d")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_no_delivery_and_is_not_followed(receiver: Server, status: int) -> None:
    """The message was lost in a GET without a body, to whatever host the receiver named."""
    receiver.statuses, receiver.location = [status], receiver.url.replace("hook", "metadata")
    (webhook,) = receivers_of([receiver.url])
    with pytest.raises(NotDelivered, match=f"it answers {status} .*, and redirects are not follo"):
        webhook.send(MESSAGE)
    ((headers, _),) = receiver.got
    assert "method" not in headers


def test_user_and_password_of_a_url_are_a_login(receiver: Server) -> None:
    (webhook,) = receivers_of([receiver.url.replace("http://", "http://me:S3%40CRET@")])
    webhook.send(MESSAGE)
    ((headers, _),) = receiver.got
    assert headers["authorization"] == f"Basic {base64.b64encode(b'me:S3@CRET').decode()}"
    assert "me" not in headers["host"]
    assert webhook.name == f"http://{headers['host']}/…"


def test_answer_that_is_not_http_is_no_delivery() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (webhook,) = receivers_of([f"http://127.0.0.1:{port}/"])
        with pytest.raises(NotDelivered):
            webhook.send(MESSAGE)
        thread.join(20)


def test_receiver_that_hangs_delays_no_other(receiver: Server, journal: Journal) -> None:
    """Each has a follower of its own. The message comes once, when the receiver wakes."""
    slow = Server()
    try:
        followers = [follow(journal, url) for url in (slow.url, receiver.url)]
        slow.awake.clear()
        journal.append(SessionEnded("finished"))
        assert followers[1].flush(20) is None
        assert len(receiver.got) == 1
        assert slow.got == []
        slow.awake.set()
        assert [follower.close(20) for follower in followers] == [None, None]
        assert len(slow.got) == 1
    finally:
        slow.awake.set()
        slow.close()


def test_name_of_a_receiver_shows_no_secret_of_apprise() -> None:
    (slack,) = receivers_of(["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general"])
    assert slack.name == "slack:…"


@pytest.mark.parametrize("url", ["S3CRET", "S3CRET:pw@host/x", f"{'S3CRET' * 4}://x"])
def test_url_without_a_scheme_is_not_shown(url: str) -> None:
    """Somebody has pasted a token alone."""
    with pytest.raises(TunerError, match="Apprise") as caught:
        receivers_of([url])
    assert "S3CRET" not in str(caught.value)


def test_long_answer_of_a_receiver_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    (webhook,) = receivers_of(["http://a.example/"])

    def fail(request: object, **_: object) -> None:
        raise http.client.BadStatusLine("x" * 60_000)

    monkeypatch.setattr(receivers_module._opener, "open", fail)
    with pytest.raises(NotDelivered) as caught:
        webhook.send(MESSAGE)
    assert len(str(caught.value)) == 100


def test_apprise_delivers(receiver: Server, journal: Journal, tmp_path: Path) -> None:
    url = receiver.url.replace("http://", "json://").partition("?")[0]
    begin_trials(journal, tmp_path)
    with notified(journal.path.parent, receivers_of([url]), journal.feed, pytest.fail):
        journal.append(SessionEnded("finished", {"best_val_loss": 3.25}, best=4))
    ((_, body),) = receiver.got
    assert json.loads(body)["message"] == "lm-1 is finished: val_loss 3.2500 in trial 4."
