"""Number and arguments of the workers; without Ray."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorUnavailableError,
    AuthenticationError,
    GetTimeoutError,
    RayError,
)

from model.corpus.corpus import Corpus
from tests.conftest import MakeSpec
from tuner.errors import Interrupted, TunerError
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.storage.storage import Storage
from tuner.workers import cluster, nodes
from tuner.workers import devices as devices_module
from tuner.workers import ray_session as session_module
from tuner.workers.cluster import calibrated, start_workers
from tuner.workers.devices import Devices, find_devices
from tuner.workers.nodes import Node
from tuner.workers.ray_session import cluster_address, ray_session

SPACE = Path(__file__).parents[3] / "search_spaces" / "lm.yaml"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with three cores and some GPUs, and the workers made on it."""
    machine = SimpleNamespace(gpus=0, has_mps=False, made=None, handles=["worker"])

    def make(*args: Any, **options: Any) -> Any:
        machine.made = args, options
        return machine.handles

    monkeypatch.setattr(devices_module, "_num_gpus", lambda: machine.gpus)
    monkeypatch.setattr(devices_module, "_has_mps", lambda: machine.has_mps)
    monkeypatch.setattr(devices_module, "num_cores", lambda: 3)
    monkeypatch.setattr(cluster, "make_workers", make)
    return machine


def space(**engine: Any) -> SearchSpace:
    loaded = load_space(SPACE)
    return loaded.model_copy(update={"engine": loaded.engine.model_copy(update=engine)})


def corpus(*, has_pairs: bool = False) -> Corpus:
    tokenizer = SimpleNamespace(decode=str)
    stub: Any = SimpleNamespace(
        splits=("t", "v"), has_pairs=has_pairs, tokenizer=tokenizer, choices=None
    )
    corpus: Corpus = stub
    return corpus


@pytest.mark.parametrize(
    ("gpus", "engine", "expected"),
    [
        (0, {}, (3, 1, "cpu")),
        (0, {"slots": 5}, (3, 5, "cpu")),
        (0, {"workers": 1}, (1, 1, "cpu")),
        (2, {}, (2, 8, "cuda")),
        (2, {"workers": 1, "slots": 32}, (1, 32, "cuda")),
        (2, {"device": "cpu"}, (3, 1, "cpu")),
    ],
)
def test_start_workers_makes_one_for_each_device(
    machine: Any, gpus: int, engine: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    machine.gpus = gpus
    handles = start_workers(find_devices(space(**engine)), corpus(), ("states", "starts"))
    assert handles is machine.handles
    (number, splits, slots, device, folders), options = machine.made
    assert (number, slots, device) == expected
    assert (splits, folders) == (("t", "v"), ("states", "starts"))
    assert options == {
        "dtype": "auto", "is_compiled": False, "decode": None, "choices": None, "storage": "",
        "is_cluster": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gpus", "engine", "expected"),
    [
        (0, {}, ("mps", 1)),
        (0, {"device": "mps", "workers": 1}, ("mps", 1)),
        (0, {"device": "cpu"}, ("cpu", 3)),
        (1, {}, ("cuda", 1)),
    ],
)
def test_mac_has_one_gpu_that_ray_does_not_count(
    machine: Any, gpus: int, engine: dict[str, Any], expected: tuple[str, int]
) -> None:
    machine.gpus, machine.has_mps = gpus, True
    on = find_devices(space(**engine))
    assert (on.kind, on.number) == expected


@pytest.mark.parametrize(
    ("gpus", "engine", "needs_calibration"),
    [(0, {}, False), (1, {}, True), (1, {"slots": 8}, False), (1, {"device": "cpu"}, False)],
)
def test_gpu_is_calibrated_unless_the_space_names_slots(
    machine: Any, gpus: int, engine: dict[str, Any], needs_calibration: bool
) -> None:
    machine.gpus = gpus
    assert find_devices(space(**engine)).needs_calibration == needs_calibration


@pytest.mark.parametrize(
    ("answer", "most", "expected"), [(16, 64, 16), (16, 5, 5), (RayError("it died"), 64, 8)]
)
def test_calibrated_asks_a_separate_worker(
    machine: Any,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    most: int,
    expected: int,
) -> None:
    """This worker reads the same data in the same dtype, and is killed afterwards."""
    asked: list[tuple[str, str]] = []
    killed: list[Any] = []

    def get(result: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    def remote(*what: str) -> Any:
        asked.append((what[0], what[1]))
        return answer

    worker = SimpleNamespace(slots_for=SimpleNamespace(remote=remote))
    machine.gpus, machine.handles = 2, [worker]
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda references, timeout: (references, []))
    monkeypatch.setattr(ray, "kill", killed.append)
    on, spec = find_devices(space(dtype="bfloat16")), make_spec()
    calibrated_devices = calibrated(on, corpus(), spec, most, Path("calibration.json"))
    assert calibrated_devices == Devices("cuda", 2, expected, "bfloat16")
    assert asked == [(spec.model_dump_json(), "calibration.json")]
    assert killed == [worker]
    (number, splits, _, device, _), options = machine.made
    assert (number, splits, device) == (1, ("t", "v"), "cuda")
    assert options == {"dtype": "bfloat16", "is_cluster": False}


@pytest.mark.slow
def test_session_is_private_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also its token, of which Ray would keep one in the user's home."""
    modes: dict[str, int] = {}

    def init(*, _temp_dir: str, **settings: Any) -> None:
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == Path(_temp_dir).parent
        modes["folder"], modes["token"] = (p.stat().st_mode & 0o777 for p in (token.parent, token))

    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session_module, "_token", lambda: "token")
    with ray_session(None) as session:
        assert session.folder.is_dir()
        assert (session.address, session.client_resources) == (None, {"tune_slot": 1})
    assert modes == {"folder": 0o700, "token": 0o600}
    assert not session.folder.exists()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_ray_of_the_program_is_not_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: shut_down.append(True))
    with pytest.raises(TunerError, match=r"call ray\.shutdown\(\) before"), ray_session(None):
        pass
    assert shut_down == []


def test_signal_while_ray_starts_is_raised_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()

    def check() -> None:
        ends.set()
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", lambda **settings: ends.wait(10))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(Interrupted), ray_session(None, on_wait=check):
        pass


@pytest.mark.parametrize("dtype", ["auto", "float32", "tf32", "bfloat16"])
def test_start_workers_passes_the_dtype(machine: Any, dtype: str) -> None:
    machine.gpus = 1
    start_workers(find_devices(space(dtype=dtype)), corpus(), ("states", "starts"))
    assert machine.made[1]["dtype"] == dtype


def test_start_workers_passes_the_decoder(machine: Any) -> None:
    start_workers(find_devices(space()), corpus(has_pairs=True), ("states", "starts"))
    assert machine.made[1]["decode"] is str


# a cluster --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "engine", "expected"),
    [
        ([(2, 0), (4, 0)], {}, ("cpu", 6)),
        ([(2, 0), (4, 0)], {"workers": 20}, ("cpu", 20)),
        ([(2, 0), (4, 1)], {}, ("cuda", 1)),
        ([(2, 0), (4, 1)], {"device": "cpu"}, ("cpu", 6)),
        ([(2, 0)], {"device": "cuda", "workers": 8}, ("cuda", 8)),
    ],
)
def test_cluster_has_the_devices_of_its_nodes(
    machine: Any,
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[tuple[int, int]],
    engine: dict[str, Any],
    expected: tuple[str, int],
) -> None:
    """Named workers may be more than it has: Ray starts them when nodes come."""
    live = [Node(f"{i}", f"node {i}", cores, gpus) for i, (cores, gpus) in enumerate(nodes)]
    monkeypatch.setattr(devices_module, "live_nodes", lambda: live)
    machine.has_mps = True
    on = find_devices(space(**engine), is_cluster=True)
    assert (on.kind, on.number, on.is_cluster) == (*expected, True)
    start_workers(on, corpus(), ("states", "starts"))
    assert machine.made[1]["is_cluster"]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_cluster_without_the_device_is_refused(
    machine: Any, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(devices_module, "live_nodes", lambda: [Node("0", "node 0", 2, 0)])
    machine.has_mps = True
    with pytest.raises(TunerError, match=f"engine.device is {device}, but the cluster"):
        find_devices(space(device=device), is_cluster=True)


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        (None, None, None),
        ("local", "head:6379", None),
        (None, "local", None),
        ("auto", None, "auto"),
        (None, "auto", "auto"),
    ],
)
def test_address_comes_from_the_command_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    variable: str | None,
    expected: str | None,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(argument) == expected


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AuthenticationError("bad token"), "asks for another token; put that of its head"),
        (ConnectionError("no node"), "this machine must be a node of it .*no node"),
        (RuntimeError("Version mismatch:\n ray 2.59"), "Version mismatch: ray 2.59"),
    ],
)
def test_cluster_that_cannot_be_joined_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def init(**settings: Any) -> None:
        assert settings["address"] == "head:6379"
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session_module, "_asks_for_token", lambda address: False)
    with pytest.raises(TunerError, match=text), ray_session("head:6379"):
        pass


PROBE = {**nodes._versions(), "sees": "yes", "unwritable": ""}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({**PROBE, "sees": ""}, "does not see .*; put the home on a file system"),
        ({**PROBE, "unwritable": "Read-only file system"}, "cannot write to .*: Read-only file"),
        (PROBE, "another file system at this path"),
        (RayError("a\nModuleNotFoundError: No module named 'tuner'"), "cannot run tuner .*install"),
        (GetTimeoutError(), "did not answer within 60 seconds"),
    ],
)
def test_node_that_cannot_train_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, text: str
) -> None:
    def get(reference: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(ray, "get", get)
    node = Node("1", "b (10.0.0.2)", 2, 0)
    problem = nodes._problem_of(node, None, tmp_path, tmp_path / "probe")
    assert re.search(f"node b \\(10.0.0.2\\) .*{text}", problem)


def test_environment_is_that_of_the_process_that_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a process on a node that was lost never comes."""
    answers = iter([ActorUnavailableError("lost", None), {"device": "cpu: new"}])

    def get(reference: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    worker = SimpleNamespace(environment=SimpleNamespace(remote=lambda: None))
    environments = cluster.Environments([worker])
    assert environments.choose(0) == environments.first == {"device": "cpu: new"}


def test_node_that_joins_later_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeProbe:
        def __init__(self, node: Node, folder: Path, storage: str | None) -> None:
            assert (folder, storage) == (tmp_path, None)
            calls.append(f"ask {node.id}")
            self.node, self.answer = node, None

        def problem(self) -> str:
            return "node foreign has torch 1.0" if self.node.id == "foreign" else ""

        def close(self) -> None:
            calls.append("close")

    calls: list[str] = []
    ready: list[Any] = []
    live = [Node(name, name, 1, 0) for name in ("known", "foreign", "alike")]
    monkeypatch.setattr(nodes, "live_nodes", lambda: live)
    monkeypatch.setattr(nodes, "_Probe", FakeProbe)
    monkeypatch.setattr(ray, "wait", lambda answers, timeout: (ready, []))
    checks = nodes.NodeChecks(tmp_path, {"known"})
    assert checks.lack("known") == ""
    assert checks.lack("lost") is None
    assert calls == []
    assert [checks.lack("foreign"), checks.lack("foreign")] == [None, None]
    assert calls == ["ask foreign"]
    ready.append(None)
    assert [checks.lack("foreign")] * 2 == ["node foreign has torch 1.0"] * 2
    assert [checks.lack("alike"), checks.lack("alike")] == [None, ""]
    assert calls == ["ask foreign", "close", "ask alike", "close"]


@pytest.mark.parametrize(
    ("free", "device", "text"),
    [
        ({"CPU": 0.5}, "cpu", "the cluster at h:1 has no free CPU (each worker needs one)"),
        ({"CPU": 4.0}, "cuda", "the cluster at h:1 has no free GPU (each worker needs one)"),
        ({"CPU": 1.0}, "cpu", "the cluster at h:1 starts one"),
    ],
)
def test_waiting_names_what_the_cluster_lacks(
    monkeypatch: pytest.MonkeyPatch, free: dict[str, float], device: str, text: str
) -> None:
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    assert nodes.waiting_text("h:1", device) == f"waiting for a worker: {text}"


def test_node_with_storage_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must reach the storage, and find there what the driver wrote."""
    url, node = f"file://{tmp_path}/bucket", Node("1", "b", 2, 0)
    answer: dict[str, str] = {}
    monkeypatch.setattr(ray, "get", lambda reference, timeout: dict(answer))

    def problem() -> str:
        answer.update(nodes._probe("/no/home", "seen", "written", url))
        return nodes._problem_of(node, None, tmp_path, tmp_path / "probe")

    assert re.search(r"cannot use engine.storage: .* is another place there", problem())
    Storage(url).write("seen", b"")
    assert problem() == ""
    (tmp_path / "bucket").rename(tmp_path / "gone")
    (tmp_path / "bucket").touch()
    assert re.search(r"node b .* cannot use engine.storage: .*cannot be used", problem())


@pytest.mark.parametrize("what", ["Python", "torch", "tuner"])
def test_node_with_another_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(ray, "get", lambda reference, timeout: {**PROBE, what: "1.0"})
    problem = nodes._problem_of(Node("1", "b", 2, 0), None, tmp_path, tmp_path)
    assert f"has {what} 1.0, and this machine has {PROBE[what]}" in problem


@pytest.mark.parametrize(
    ("gpus", "engine", "message"),
    [
        (
            0,
            {"device": "cuda"},
            "engine.device is cuda, but this machine has no GPU",
        ),
        (
            1,
            {"device": "cuda", "workers": 2},
            "engine.workers is 2, but this machine has only 1 GPUs",
        ),
        (1, {"device": "mps"}, "engine.device is mps, but this machine is no Mac with a GPU"),
        (0, {"dtype": "tf32"}, "only NVIDIA GPUs compute in tf32, but the device of this search"),
        (1, {"dtype": "mixed_bfloat16"}, "only CPUs compute in mixed_bfloat16, but the device of"),
    ],
)
def test_find_devices_refuses_missing_devices(
    machine: Any, gpus: int, engine: dict[str, Any], message: str
) -> None:
    machine.gpus = gpus
    with pytest.raises(TunerError, match=message):
        find_devices(space(**engine))
