"""Passwords and tokens are masked in every text that people see."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TextIO, cast

import pytest

from tuner.errors import RecordError, StoreError
from tuner.texts.secrets import MaskedStream, masked, without_user_info


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://admin:hush@host:5000/x", "http://admin:***@host:5000/x"),
        ("postgresql+psycopg2://me:hush@db/runs", "postgresql+psycopg2://me:***@db/runs"),
        ("the store 'http://a:hush@h' and http://b:hush@h.", "the store 'http://a:***@h' and http://b:***@h."),
        ("https://hush@github.com/x", "https://***@github.com/x"),
        ("http://me:hu@sh@host", "http://me:***@host"),
        ("http://me:hu/sh@host/", "http://me:***@host/"),
        ("http://:hush@host/", "http://:***@host/"),
        ("https://h/x?token=hush&page=2", "https://h/x?token=***&page=2"),
        ("mysql://h/x?a=1&ssl_password=hush", "mysql://h/x?a=1&ssl_password=***"),
        ("s3://b/k?X-Amz-Signature=hush", "s3://b/k?X-Amz-Signature=***"),
    ],
)  # fmt: skip
def test_masked_hides_secrets_of_urls(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/1/runs?searchFilter=a&orderByKey=metrics.val_loss",
        "sqlite:////home/me@work/runs/mlflow.db",
        "see http://host:5000/a@b, or write to me@example.com",
        "lm.yaml:9:15 α_max: the low end must be above 0, key=3",
        "step 3: token_accuracy=0.3",
    ],
)
def test_masked_keeps_other_texts(text: str) -> None:
    assert masked(text) == text


def test_masked_hides_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:long%20hush#1@db")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdefgh1")
    text = "no port in 'long%20hush#1', nor 'long hush#1'; abcdefgh1 was refused"
    assert masked(text) == "no port in '***', nor '***'; *** was refused"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://postgres:postgres@db")
    assert masked("postgres is down") == "postgres is down"  # a word, and no secret


def test_errors_and_streams_mask_what_they_show() -> None:
    for kind in (StoreError, RecordError):
        assert str(kind("no http://me:hush@host")) == "no http://me:***@host"
    stream = io.StringIO()
    cast(TextIO, MaskedStream(stream)).write("at http://me:hush@host\n")
    assert stream.getvalue() == "at http://me:***@host\n"


def test_url_for_a_browser_has_no_user() -> None:
    assert without_user_info("http://me:hush@host:1/a@b") == "http://host:1/a@b"
    assert without_user_info("http://host:1/a@b") == "http://host:1/a@b"


_PROGRAM = """
import logging, sys, threading, warnings
from tuner.texts.secrets import mask_output
mask_output()
mask_output()
logging.warning("logged http://me:%s@host", "hush")
try:
    raise OSError("caught http://me:hush@host")
except OSError:
    logging.exception("failed")
warnings.warn("warned http://me:hush@host")
def fail():
    raise ValueError("thread http://me:hush@host")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
try:
    fail()
except ValueError as error:
    raise RuntimeError("raised http://me:hush@host") from error
"""


@pytest.mark.slow
def test_python_prints_no_secret() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    for word in ("logged", "caught", "warned", "thread", "raised"):
        assert f"{word} http://me:***@host" in done.stderr
    assert "hush" not in done.stderr
