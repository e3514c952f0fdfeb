"""Nodes of a Ray cluster as namespaces of one machine (Linux, root): each is a machine to Ray.

A node has its own network, mounts, host name and process ids, and a private /tmp and /dev/shm. A
bridge connects the nodes, in a namespace of its own, so that nothing of the machine's network
changes. All nodes see the other folders of the machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts.memory import descendants
from parts.processes import kind_of

PORT = 6379
NETWORK = "10.77.0"
PREFIX = "tuner-bench"
OBJECT_STORE_BYTES = 100_000_000
START_SECONDS = 60.0
# A lost node is noticed within 6 s instead of a minute; `ray start` of the head takes these.
ROOT = Path(__file__).resolve().parents[3]
HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
# The first process of a node: it collects the processes whose parents have ended.
_INIT = """
mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm &&
mount --bind "$1" /etc/hosts && hostname "$2" && { sleep infinity & wait; }
"""


def why_not() -> str:
    """Return why this machine cannot make such nodes; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces of a network need root on Linux"
    if Path("/tmp") in (*Path(sys.executable).parents, *ROOT.parents):
        return "each node has a /tmp of its own, and this Python or this code lies in /tmp"
    name = f"{PREFIX}-{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", "br0", "type", "bridge")
            unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "proc"]
            subprocess.run([*unshare, "proc", "/proc"], check=True, capture_output=True)
        finally:
            _ip("netns", "del", name)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"") or str(error).encode()
        return f"this machine cannot make namespaces: {reason.decode().strip()}"
    return ""


class Network:
    """A switch and the nodes on it, until the block ends.

    Args:
        folder: folder that all nodes see; not in /tmp.
        environment: environment of all processes.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self._id = f"{PREFIX}-{os.getpid()}"
        self.switch = f"{self._id}-switch"
        self.nodes: dict[int, Node] = {}

    def __enter__(self) -> Network:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "br0", "up")
        names = "".join(f"{NETWORK}.{n} node{n}\n" for n in range(1, 10))
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        return self

    def __exit__(self, *exception: object) -> None:
        for node in self.nodes.values():
            node.kill()
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", node.namespace)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.switch)

    @property
    def address(self) -> str:
        """Address of the cluster, whose head is the first node."""
        return f"{NETWORK}.1:{PORT}"

    def start(self, number: int, cpus: int = 1, **environment: str) -> Node:
        """Start Ray on a node that is down; return the node when Ray has started.

        Args:
            number: number of the node; 1 is the head.
            cpus: number of cores that Ray may use on it.
            environment: more variables of its environment.
        """
        if number not in self.nodes:
            self.nodes[number] = Node(self, number, f"{self._id}-{number}")
        node = self.nodes[number]
        node.boot()
        node.start_ray(cpus, environment)
        return node

    def stop(self) -> None:
        """Kill all nodes, the head last."""
        for number in sorted(self.nodes, reverse=True):
            self.nodes[number].kill()


class Node:
    """A node of a network, made by `Network.start`.

    Args:
        network: its network.
        number: its number.
        namespace: name of its network namespace.
    """

    def __init__(self, network: Network, number: int, namespace: str) -> None:
        self.number, self.namespace, self._network = number, namespace, network
        self._unshare: subprocess.Popen[bytes] | None = None
        port = f"port{number}"
        _ip("netns", "add", namespace)
        _ip(
            "link", "add", port, "netns", network.switch, "type", "veth",
            "peer", "name", "eth0", "netns", namespace,
        )  # fmt: skip
        _ip("-n", network.switch, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "link", "set", "lo", "up")

    def boot(self) -> None:
        """Make the node's other namespaces."""
        self._unshare = subprocess.Popen(
            [
                # they end with this program, whatever ends it
                "setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace,
                "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
                "--propagation", "private", "bash", "-c", _INIT, "init",
                str(self._network.folder / "hosts"), f"node{self.number}",
            ],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while self.run(["hostname"]).stdout.strip() != f"node{self.number}":
            if time.monotonic() > until:
                raise TimeoutError(f"node {self.number} did not start")
            time.sleep(0.05)

    def start_ray(self, cpus: int, environment: Mapping[str, str]) -> None:
        """Start Ray's processes, as a user does by hand."""
        role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if self.number != 1:
            role = [f"--address={self._network.address}"]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *role,
            f"--node-ip-address={NETWORK}.{self.number}", f"--num-cpus={cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats",
        ]  # fmt: skip
        done = self.run(command, {"RAY_AUTH_MODE": "token", **HEALTH_CHECKS, **environment})
        if done.returncode != 0:
            raise RuntimeError(f"ray start failed on node {self.number}: {done.stderr[-2000:]}")

    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one on this node, in the shared folder."""
        first = self._first
        if first is None:
            raise ProcessLookupError
        inside = ["nsenter", f"--target={first}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*inside, "env", "-C", str(self._network.folder), *command]

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this node."""
        try:
            words = self.command(command)
        except (ProcessLookupError, OSError):
            return subprocess.CompletedProcess([], 1, "", "the node is down")
        return subprocess.run(
            words, env={**self._network.environment, **(environment or {})},
            capture_output=True, text=True, check=False, timeout=START_SECONDS * 3,
        )  # fmt: skip

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on this node."""
        return subprocess.Popen(
            self.command(command), env=self._network.environment, text=True, **options
        )

    @property
    def _first(self) -> int | None:
        """Process of the machine that is the node's first one."""
        if self._unshare is None or self._unshare.poll() is not None:
            return None
        pid = self._unshare.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None

    @property
    def pids(self) -> list[int]:
        """Processes on the node, but commands that run on it."""
        first = self._first
        return [] if first is None else descendants(first)

    @property
    def has_worker(self) -> bool:
        """True if a worker of a search runs on the node."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                if kind_of(pid) == "worker":
                    return True
        return False

    @property
    def ray_id(self) -> str:
        """Id of the node in Ray."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if "raylet\0" in command and (found := re.search("--node.id=([0-9a-f]+)", command)):
                    return found[1]
        raise LookupError(f"node {self.number} runs no Ray")

    def kill(self) -> None:
        """End all processes on the node by SIGKILL, as a power failure does."""
        first = self._first
        if first is not None:
            with contextlib.suppress(OSError):
                os.kill(first, signal.SIGKILL)
        if self._unshare is not None:
            self._unshare.kill()
            self._unshare.wait()

    def cut(self) -> None:
        """Pull the node's network cable."""
        _ip("-n", self._network.switch, "link", "set", f"port{self.number}", "down")

    def join(self) -> None:
        """Put the cable back."""
        _ip("-n", self._network.switch, "link", "set", f"port{self.number}", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
