"""What docker/ ships is valid by the tools of others, and safe by default.

Compose reads the stack itself, hadolint the Dockerfile, and the schemas of Kubernetes the manifests
and the pods of KubeRay's resources. `e2e/test_stack.py` runs the servers.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tuner.arguments.parser import parse
from tuner.errors import TunerError
from tuner.serve.access import Access, put_users_of
from tuner.serve.database import Database

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
OURS = ("mlflow", "tuner", "server", "ray-head", "ray-worker")


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(program)
    return subprocess.run(
        [path, *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def services(**environment: str) -> dict[str, Any]:
    command = ("-f", COMPOSE, "--profile", "*", "config", "--format", "json")
    done = run("docker-compose", *command, **environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return services()


def test_compose_refuses_a_misspelled_key(tmp_path: Path) -> None:
    """The validation above can fail."""
    changed = tmp_path / "compose.yaml"
    changed.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:", 1))
    done = run("docker-compose", "-f", changed, "config", "--quiet")
    assert done.returncode != 0
    assert "healthchek" in done.stderr


def test_only_the_proxies_are_published_and_to_this_machine(stack: dict[str, Any]) -> None:
    published = {name: s["ports"] for name, s in stack.items() if "ports" in s}
    assert sorted(published) == ["gate", "proxy"]
    assert {p["host_ip"] for ports in published.values() for p in ports} == {"127.0.0.1"}
    assert services(TUNER_BIND="0.0.0.0")["proxy"]["ports"][0]["host_ip"] == "0.0.0.0"


def test_servers_are_healthy_before_those_that_need_them(stack: dict[str, Any]) -> None:
    for name, service in stack.items():
        assert name in {"tuner", "ray-worker"} or service["healthcheck"]["test"]
        for needed in service.get("depends_on", {}).values():
            assert needed["condition"] == "service_healthy"
    assert [name for name, s in stack.items() if "profiles" in s] == [
        name for name in stack if name in {"tuner", "server", "gate", "ray-head", "ray-worker"}
    ]


def test_containers_have_few_rights(stack: dict[str, Any]) -> None:
    for name, service in stack.items():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert name == "s3" or service["read_only"] is True
    assert stack["postgres"]["user"] == "999:999"
    assert "USER 10001:10001" in (DOCKER / "Dockerfile").read_text()


def test_images_and_packages_are_pinned(stack: dict[str, Any]) -> None:
    for name, service in stack.items():
        image = service["image"]
        assert name in OURS or re.search(r":v?\d+\.\d+", image), image
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins}
    project = (ROOT / "pyproject.toml").read_text().partition("optional-dependencies")[0]
    needed = re.findall(r'^  "([\w-]+)', project.partition("\ndependencies")[2], re.MULTILINE)
    assert len(needed) > 20
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in needed} <= names
    assert {"flask-wtf", "boto3", "psycopg2-binary", "s3fs", "apprise", "ray"} <= names


def test_hadolint_accepts_the_dockerfile_and_not_a_careless_one(tmp_path: Path) -> None:
    done = run("hadolint", DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python:latest\nRUN cd /x && sudo pip install torch\n")
    assert run("hadolint", careless).returncode != 0


# secrets ------------------------------------------------------------------------------------------


def make_secrets(folder: Path, *hosts: str) -> subprocess.CompletedProcess[str]:
    command = [DOCKER / "make-secrets.sh", folder, *hosts]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_secrets_are_drawn_once_and_the_folder_is_private(
    tmp_path: Path, stack: dict[str, Any]
) -> None:
    folder = tmp_path / "secrets"
    done = make_secrets(folder, "mlflow.example")
    assert done.returncode == 0, done.stderr
    assert folder.stat().st_mode & 0o777 == 0o700
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    drawn = [t.strip() for t in texts.values() if re.fullmatch(r"[0-9a-f]{48}\n", t)]
    assert len(drawn) == len(set(drawn)) == 6
    declared = re.findall(r"\{file: secrets/([\w.]+)\}", COMPOSE.read_text())
    assert sorted([*declared, "ca.key"]) == sorted(texts)
    assert not any(secret in done.stdout + done.stderr for secret in drawn)
    certificate = subprocess.run(
        ["openssl", "x509", "-in", folder / "tls.crt", "-noout", "-ext", "subjectAltName"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "DNS:localhost, DNS:proxy, IP Address:127.0.0.1, DNS:mlflow.example" in certificate
    (identity,) = json.loads(texts["s3.json"])["identities"]
    allowed = {"Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"}
    assert set(identity["actions"]) == allowed, "one bucket, and nobody's rights"
    again = make_secrets(folder)
    assert again.returncode == 2
    assert "its servers need its passwords" in again.stderr
    assert texts == {path.name: path.read_text() for path in folder.iterdir()}


def test_with_secrets_makes_variables_of_files(tmp_path: Path) -> None:
    (tmp_path / "A_TOKEN").write_text("a b$c\n")
    (tmp_path / "tls.key").write_text("no variable")
    done = subprocess.run(
        [DOCKER / "with-secrets.sh", "env"], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path)},
    )  # fmt: skip
    assert "A_TOKEN=a b$c\n" in done.stdout
    assert "no variable" not in done.stdout
    empty = {"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path / "none")}
    subprocess.run([DOCKER / "with-secrets.sh", "true"], check=True, env=empty)


def test_no_secret_is_in_the_settings_of_a_container(stack: dict[str, Any]) -> None:
    for service in stack.values():
        for name, value in service.get("environment", {}).items():
            is_secret = re.search("PASSWORD|SECRET|TOKEN|KEY", name)
            assert not is_secret or name.endswith("_FILE") or not value, name


# Kubernetes ---------------------------------------------------------------------------------------


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.stem} {document['kind']} {document['metadata']['name']}", document


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """The templates of pods anywhere in a resource, as pods."""
    if isinstance(value, dict):
        if "template" in value:
            template = value["template"]
            named = {"name": "pod", **template.get("metadata", {})}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template["spec"]}
        for part in value.values():
            yield from pods(part)
    elif isinstance(value, list):
        for part in value:
            yield from pods(part)


MANIFESTS = dict(manifests())
VERSION = kubernetes_validate.latest_version()


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_is_valid(name: str) -> None:
    """A resource of KubeRay by the schema of its pods: no schema of its own is at hand."""
    document = MANIFESTS[name]
    if document["apiVersion"] == "ray.io/v1":
        assert len(list(pods(document))) == 2
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)
    for pod in pods(document):
        kubernetes_validate.validate(pod, VERSION, strict=True)
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])


def test_validation_of_manifests_can_fail() -> None:
    (pod,) = pods(MANIFESTS["stack Deployment mlflow"])
    pod["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_server_knows_its_options_and_the_users_of_the_secrets(
    tmp_path: Path, stack: dict[str, Any]
) -> None:
    """Of compose.yaml and of the manifest, by the parser and the code of the server."""
    commands = [stack["server"]["command"]]
    (pod,) = pods(MANIFESTS["serve Deployment server"])
    (text,) = pod["spec"]["containers"][0]["args"]
    commands.append(shlex.split(text.partition("exec ")[2].replace('"$DEVICES"', "8")))
    for command in commands:
        options = parse(command[1:])
        assert (options.command, options.host, options.port) == ("serve", "0.0.0.0", 8000)
        assert options.users == "/run/secrets/users.json"
        for network in options.proxy.split(","):
            assert ipaddress.ip_network(network).is_private
    assert make_secrets(tmp_path / "secrets").returncode == 0
    with closing(Database.in_folder(tmp_path)) as database:
        assert put_users_of(database, tmp_path / "secrets" / "users.json") == 1
        assert put_users_of(database, tmp_path / "secrets" / "users.json") == 0
        (user,) = database.users()
        assert (user.name, user.role) == ("admin", "admin")
        users = json.loads((tmp_path / "secrets" / "users.json").read_text())["users"]
        known = Access(database).identify(f"Bearer {users[0]['token']}", "")
        assert known == user
        for wrong in (
            "", "[]", '{"users": [{"name": "a", "role": "user", "token": "short"}]}',
            '{"users": [{"name": "a", "role": "root", "token": "tuner_1_x"}]}',
        ):  # fmt: skip
            (tmp_path / "wrong.json").write_text(wrong)
            with pytest.raises(TunerError, match=r"wrong\.json"):
                put_users_of(database, tmp_path / "wrong.json")


def test_nginx_takes_the_configuration_of_the_gate(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx; on Debian: apt-get install nginx")
    assert make_secrets(tmp_path / "secrets").returncode == 0
    text = (DOCKER / "nginx-serve.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    text = text.replace("/run/secrets", f"{tmp_path}/secrets")
    text = text.replace("server server:8000", "server 127.0.0.1:8000")
    (tmp_path / "nginx.conf").write_text(text)
    done = subprocess.run(
        [nginx, "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_kubernetes_runs_the_commands_of_compose(stack: dict[str, Any]) -> None:
    """Two descriptions of one stack, which must not drift apart."""
    for name in ("postgres", "s3", "mlflow", "proxy"):
        kind = "StatefulSet" if name in {"postgres", "s3"} else "Deployment"
        (pod,) = pods(MANIFESTS[f"stack {kind} {name}"])
        (container,) = pod["spec"]["containers"]
        assert name == "mlflow" or container["image"] == stack[name]["image"]
        hosts = ("--allowed-hosts=", "--cors-allowed-origins=", "-ip=")
        ours, theirs = (
            [word for word in words if not word.startswith(hosts)]
            for words in (container["args"], stack[name]["command"])
        )
        assert ours == theirs
        variables = {e["name"]: e.get("value") for e in container.get("env", ())}
        assert variables.items() >= stack[name].get("environment", {}).items() or name == "s3"
    assert not [n for n, d in MANIFESTS.items() if d.get("spec", {}).get("type", "") != ""]
