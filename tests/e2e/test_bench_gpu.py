"""bench/gpu.py: what the command refuses and needs; test_bench_rehearsal.py runs its parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
REHEARSAL = ("--device", "cpu", "--quick")


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)


def command(part: str, out: Path, *options: str) -> list[Any]:
    return [sys.executable, BENCH / "gpu.py", "--part", part, "--out", out, *options]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "gpu"], "--device must be cpu, cuda or cuda:N, got gpu"),
        (["--device", "cpu"], "--device cpu is a rehearsal and needs --quick"),
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
    ],
)
def test_invalid_options_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    import gpu

    monkeypatch.setattr(sys, "argv", list(map(str, command("law", tmp_path, *options)[1:])))
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_wheels_are_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu

    def version(name: str) -> str:
        if name in {"pydantic-core", "safetensors"}:
            raise gpu.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(gpu.metadata, "version", version)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", list(map(str, command("law", out, *REHEARSAL)[1:])))
    assert gpu.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench/gpu.py --part law needs pydantic-core, safetensors, which ")
    assert "carry their wheels" in line
    assert not out.exists()


def test_only_searches_need_the_service() -> None:
    import gpu

    for part in ("law", "kernel", "fusion", "lora", "profile"):
        assert gpu.needed(part, on_gpu=False) == [*gpu.NEEDED]
    names = gpu.needed("search", on_gpu=True)
    assert {"triton", "ray", "optuna", "mlflow", "pyyaml"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_parts_but_the_search_import_only_what_they_name(tmp_path: Path) -> None:
    """A bare machine has nothing else, not even our packages."""
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'regex', 'loky', 'yaml', 'sacrebleu', 'scipy',"
        " 'matplotlib', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "import gpu\n"
        "from parts.gpu.measurement import Where, part_of\n"
        "for part in ('law', 'kernel', 'fusion', 'lora', 'profile'):\n"
        "    assert part_of(part).measurements(Where('cuda', False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(BENCH)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_real_size_is_that_of_the_shipped_space() -> None:
    from parts.gpu.law import REAL

    from tuner.space_file.load import read_space

    space = read_space(BENCH.parent / "search_spaces" / "lm_gpu.yaml")[0]
    for name, parameter in space.model.items():
        assert getattr(REAL.architecture, name) == parameter.distribution.value, name
    assert REAL.architecture.vocab_size == space.tokenizer.vocab_size


@pytest.mark.parametrize("quick", [False, True])
def test_shrunk_space_is_valid(tmp_path: Path, quick: bool) -> None:
    from parts.gpu.search import SPACE, shrunk

    from tuner.space_file.load import read_space

    file = tmp_path / "lm_gpu.yaml"
    file.write_text(shrunk(SPACE.read_text(), quick=quick))
    space = read_space(file)[0]
    assert space.budget.tokens == (10_000 if quick else 2_000_000)
    assert space.model["d_model"].distribution.value == (16 if quick else 128)
    with pytest.raises(ValueError, match="has 0 entries d_model"):
        shrunk("model: {}", quick=quick)
