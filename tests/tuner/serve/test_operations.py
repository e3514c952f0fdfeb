"""Operations: processes of their own that outlive the server, and what users may ask for."""

from __future__ import annotations

import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.serve.conftest import Place
from tests.tuner.serve.test_api import bearer
from tuner.serve.access import Refused, new_user
from tuner.serve.operations.operations import Operation, Operations
from tuner.serve.operations.wishes import CompareWish, ExportWish, GenerateWish, ReportWish

API = "/api/v1"
# stands for tuner: it writes what its words ask for, and fails for replays of trial 0
PROGRAM = """
import json, pathlib, sys
words = sys.argv[1:]
print("at work", file=sys.stderr)
if words[0] == "replay" and words[1].endswith("/0"):
    print("tuner replay: the data has changed", file=sys.stderr)
    sys.exit(2)
if "--output" in words:
    path = pathlib.Path(words[words.index("--output") + 1])
    if path.suffix:
        path.write_text("<p>a report")
    else:
        path.mkdir()
        (path / "model.bin").write_bytes(b"weights")
for option in ("--system-file", "--file"):
    if option in words:
        words.append(pathlib.Path(words[words.index(option) + 1]).read_text())
print("a line")
print(json.dumps({
    "words": words, "folder": "/of/the/server", "verdict": "different",
    "sentence": "different: by 1",
    "run": "12345678abc", "trial": 3, "search": "a", "status": "finished", "trials": 2,
    "files": ["model.bin"], "bytes": 7, "format": "hf", "tokens_per_second": 5.0,
    "texts": [{"run": "12345678abc", "trial": 3, "search": "a", "val_loss": 2.5, "sample": 0,
               "continues": words[-1], "text": " is written", "tokens": 2}],
}))
sys.exit(words[0] == "replay")
"""


@pytest.fixture
def begun(place: Place) -> Iterator[Place]:
    """A search that has begun, on a server whose operations are made by `PROGRAM`."""
    place.submit(name="a")
    place.dispatcher.tick()
    folder = place.home.root / "serve"
    doing = Operations(place.home, folder, (sys.executable, "-c", PROGRAM))
    place.client.app.state.operations = doing  # type: ignore[attr-defined]
    yield place
    for thread in threading.enumerate():
        if thread.name.startswith("operation "):
            thread.join()


def ask(place: Place, **wish: object) -> dict[str, object]:
    answer = place.client.post(f"{API}/searches/a/operations", json=wish)
    assert answer.status_code == 202, answer.text
    return answer.json()  # type: ignore[no-any-return]


def ended(place: Place, number: object) -> dict[str, object]:
    for thread in threading.enumerate():
        if thread.name == f"operation {number}":
            thread.join()
    return place.client.get(f"{API}/operations/{number}").json()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_operations_are_commands_whose_files_are_downloaded(begun: Place) -> None:
    page = begun.client.get(f"{API}/searches/a/report")
    assert (page.status_code, page.text) == (200, "<p>a report")
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts"), (
        "its scripts reach nothing of this server"
    )
    again = ask(begun, kind="report")
    assert again["state"] == "done", "of an equal journal it is not written again"
    export = ended(begun, ask(begun, kind="export", trial=0, format="torch")["id"])
    assert export["files"] == [{"name": "a-0-torch.zip", "bytes": 143}]
    assert export["result"]["words"][:4] == ["export", "a/0", "--format", "torch"]  # type: ignore[index]
    assert "/of/the/server" not in str(export)
    data = begun.client.get(f"{API}/operations/{export['id']}/files/a-0-torch.zip").content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("a-0-torch/model.bin") == b"weights"
    for name in ("about.json", "..%2fabout.json", "x"):
        path = f"{API}/operations/{export['id']}/files/{name}"
        assert begun.client.get(path).status_code == 404
    text = "--home /etc\n-x $(id)"
    wish = {"kind": "generate", "prompt": text, "max_tokens": 9}
    made = ended(begun, ask(begun, **wish, system=f"{text}!")["id"])
    words = made["result"]["words"]  # type: ignore[index]
    assert words[-2:] == [f"{text}!", text], "a prompt is no option"
    assert "--max-tokens=9" in words
    assert "--raw" not in words
    bad = ended(begun, ask(begun, kind="replay", trial=0)["id"])
    assert (bad["state"], bad["problem"]) == ("failed", "the data has changed")
    differs = ended(begun, ask(begun, kind="replay")["id"])
    assert (differs["state"], differs["exit_status"]) == ("done", 1), "a verdict is a result"
    output = begun.client.get(f"{API}/operations/{differs['id']}/output").text
    assert output.startswith("a line\n")
    listed = begun.client.get(f"{API}/operations", params={"search": "a"}).json()
    assert [each["kind"] for each in listed] == [
        "replay", "replay", "generate", "export", "report"
    ]  # fmt: skip
    assert begun.client.get(f"{API}/operations", params={"search": "b"}).json() == []
    later = Operations(begun.home, begun.home.root / "serve")
    found = later.read(str(export["id"]))
    assert isinstance(found, Operation)
    assert found.state == "done", "another server knows how it ended"


def test_wishes_that_make_no_sense_are_refused(begun: Place) -> None:
    for wish, status in (
        ({"kind": "replay", "trial": 99}, 404),
        ({"kind": "shell"}, 422),
        ({"kind": "export", "format": "exe"}, 422),
        ({"kind": "generate", "max_tokens": 10_000}, 422),
        ({"kind": "show", "by": "--home=/"}, 422),
        ({"kind": "compare", "runs": ["a/0", "none/1"]}, 404),
        ({"kind": "compare", "runs": ["a/-x"]}, 400),
        ({"kind": "report", "output": "/etc/passwd"}, 422),
    ):
        answer = begun.client.post(f"{API}/searches/a/operations", json=wish)
        assert answer.status_code == status, answer.text
        said = answer.json()
        assert (said[0] if isinstance(said, list) else said)["message"]
    begun.submit(5, name="b")
    refused = begun.client.post(f"{API}/searches/b/operations", json={"kind": "report"})
    assert (refused.status_code, refused.json()) == (409, {"message": "b has not begun"})


def test_users_may_ask_for_what_they_may_see(begun: Place) -> None:
    tokens = {
        name: bearer(new_user(begun.database, name, role, team))
        for name, role, team in (
            ("ann", "user", "x"), ("vic", "viewer", "x"), ("eve", "user", "y"),
            ("root", "admin", ""),
        )
    }  # fmt: skip
    begun.kill()
    begun.database.close()
    begun.open()
    begun.database.change("a", owner="ann")
    doing = begun.client.app.state.operations  # type: ignore[attr-defined]
    path, replay = f"{API}/searches/a/operations", {"kind": "replay"}
    denied = begun.client.post(path, json=replay, headers=tokens["vic"])
    assert (denied.status_code, "viewer" in denied.text) == (403, True)
    assert begun.client.post(path, json=replay, headers=tokens["eve"]).status_code == 404
    doing._slots = threading.BoundedSemaphore()  # what is begun waits
    doing._slots.acquire()
    text = doing.begin("a", GenerateWish(kind="generate", prompt="of ann"), "ann", "")
    try:
        url = f"{API}/operations/{text.begun.id}"
        seen = {
            user: begun.client.get(url, headers=headers).status_code
            for user, headers in tokens.items()
        }
        assert seen == {"ann": 200, "vic": 404, "eve": 404, "root": 200}, "a prompt is one's own"
        report = doing.begin("a", ReportWish(kind="report"), "ann", "")
        cancel = f"{API}/operations/{report.begun.id}/cancel"
        assert begun.client.post(cancel, headers=tokens["vic"]).status_code == 403
        assert begun.client.post(cancel, headers=tokens["ann"]).json()["state"] == "interrupted"
        for seed in range(3):
            doing.begin("a", GenerateWish(kind="generate", seed=seed), "ann", "")
        assert doing.begin("a", GenerateWish(kind="generate"), "ann", "").state == "waiting"
        with pytest.raises(Refused, match="4 operations are under way"):
            doing.begin("a", GenerateWish(kind="generate", seed=9), "ann", "")
    finally:
        for each in doing.all():
            doing.cancel(each)
        doing._slots.release()


def test_commands_are_made_of_checked_words(tmp_path: Path) -> None:
    export = ExportWish(kind="export", format="gguf")
    assert export.command("lm-1", tmp_path) == [
        "export", "--search", "lm-1", "--format", "gguf", "--output",
        str(tmp_path / "lm-1-best-gguf"), "--json",
    ]  # fmt: skip
    assert CompareWish(kind="compare", runs=["lm-1/3", "lm-2"]).command("lm-1", tmp_path) == [
        "compare", "lm-1/3", "lm-2"
    ]  # fmt: skip
