"""SIGTERM and SIGHUP end the process of a command, whatever it does; in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
# What a process does when the signal comes. None of it is part of a command yet.
SLEEP = "print('here', flush=True); time.sleep(60)"
PLACES = {
    "import": f"""
import time, tuner
def hidden_model(): {SLEEP}
tuner.hidden_model = hidden_model
""",
    "parse": f"""
import time, tuner.cli
def parse(arguments): {SLEEP}
tuner.cli.parse = parse
""",
}
# A handler in Python cannot run: the main thread waits for a lock of its own, and never returns.
STUCK = """
import ctypes, sys
from tuner import cli, leaving
from tuner.commands import symbols
def run(options):
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    sys.stdout.write("not lost")
    with leaving.on_leaving(lambda: sys.stderr.write("cleaned up")):
        libc.pthread_mutex_lock(mutex)
        sys.stderr.write("here\\n")
        sys.stderr.flush()
        libc.pthread_mutex_lock(mutex)
symbols.run_symbols = run
sys.argv = ["tuner", "symbols"]
"""
RUN = "\nfrom tuner.__main__ import run_process\nrun_process()"


def may_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_unshare = pytest.mark.skipif(not may_unshare(), reason="no PID namespaces here")


def signal_process(process: subprocess.Popen[str], wrapper: tuple[str, ...], number: int) -> None:
    """Send a signal to a process, which may be the child of its wrapper."""
    if not wrapper:
        process.send_signal(number)
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split():
        os.kill(int(child), number)


@pytest.mark.parametrize("wrapper", [(), pytest.param(UNSHARE, marks=needs_unshare)])
@pytest.mark.parametrize(
    ("place", "number"),
    [("import", signal.SIGTERM), ("parse", signal.SIGHUP), ("import", signal.SIGINT)],
)
def test_signal_before_a_command_begins_ends_it_at_once(
    place: str, number: int, wrapper: tuple[str, ...]
) -> None:
    """Process 1, as a container's command is, hears no signal that it does not handle."""
    command = [*wrapper, sys.executable, "-c", PLACES[place] + RUN]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # `nohup`, `&`
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        signal_process(process, wrapper, number)
        _, err = process.communicate(timeout=60)
    said = "interrupted\n" if number == signal.SIGINT else ""
    assert (process.returncode, err) == (128 + number, said)


def test_signal_ends_a_process_whose_main_thread_is_stuck() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK + RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        time.sleep(1.0)  # until it is stuck
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "not lost", "cleaned up")


def test_signal_while_python_ends_changes_no_status() -> None:
    """Python gives up its handlers, and then clears its memory, which takes a while."""
    code = """
import sys, time, tuner.leaving
tuner.leaving.prepare()
class Last:
    def __del__(self, write=sys.stderr.write, sleep=time.sleep):
        write("here\\n")
        sleep(1.0)
last = Last()
tuner.leaving.end(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_signal_that_is_ignored_stays_ignored() -> None:
    """As under `nohup`."""
    code = "import signal, tuner.leaving as l; l.prepare(); print(signal.getsignal(signal.SIGHUP))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert done.stdout == f"{signal.SIG_IGN}\n"


@needs_unshare
def test_command_ends_by_sigterm_as_process_1(tmp_path: Path) -> None:
    """As in a container, where the kernel drops a signal that has no handler."""
    vocab, merges = train_bpe(__file__, 257, [])
    Tokenizer(vocab, merges, []).save(tmp_path, "huggingface")
    command = [sys.executable, "-m", "tuner", "tokenizer", "encode", str(tmp_path)]
    with subprocess.Popen(
        [*UNSHARE, *command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 60
        time.sleep(1.0)  # it waits for its input
        while process.poll() is None and time.monotonic() < until:
            signal_process(process, UNSHARE, signal.SIGTERM)
            time.sleep(0.2)
        if process.poll() is None:
            process.kill()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 143
    assert err in {"", "ended by SIGTERM\n"}  # empty if it had not begun
