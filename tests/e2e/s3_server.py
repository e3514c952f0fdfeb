"""A real server of S3, SeaweedFS, that can be stopped and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from typing_extensions import override

from tests.e2e.conftest import Workplace
from tests.ports import free_port

BUCKET = "tuner"
_KEY, _SECRET = "key-of-the-tests", "secret-of-the-tests"
_PARTS = ("s3", "master", "volume", "filer")


class S3Server:
    """A server with an empty bucket, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        ports = {part: (free_port(), free_port()) for part in _PARTS}
        self._endpoint = f"http://127.0.0.1:{ports['s3'][0]}"
        self._command = [
            str(Path(sys.executable).with_name("weed")), "mini", f"-dir={folder}",
            f"-bucket={BUCKET}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false",
            "-webdav=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0",
            "-s3.port.lance=0", "-s3.iam=false",
        ]  # fmt: skip
        for part, (port, grpc) in ports.items():
            self._command += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start, and wait until it answers."""
        environment = {**os.environ, **self.variables}
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            self._command, env=environment, stdin=null, stdout=null, stderr=null
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, self._command
            assert time.monotonic() < deadline, self._command
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Return True if the bucket exists, which the server makes after it has begun to answer."""
        client = boto3.client(
            "s3", endpoint_url=self._endpoint, region_name="us-east-1",
            aws_access_key_id=_KEY, aws_secret_access_key=_SECRET,
            config=Config(connect_timeout=1, read_timeout=1, retries={"max_attempts": 0}),
        )  # fmt: skip
        try:
            client.head_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    def stop(self) -> None:
        """End it; its data stay."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for its own parts, now and then for long
                self._process.kill()
                self._process.wait()
            self._process = None


@dataclass(frozen=True)
class S3Workplace(Workplace):
    """A place whose commands know a server of S3."""

    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    @override
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.variables}
