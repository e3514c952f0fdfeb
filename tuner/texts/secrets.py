"""Masks passwords and tokens in texts: in URLs, and where the environment holds them.

`TunerError` masks its message. `mask_output` masks what Python itself prints: tracebacks, log
messages and warnings, and shows their control characters. The streams of the commands mask every
line (`commands.output`).
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO
from urllib.parse import unquote

from tuner.texts.control_characters import visible

MASK = "***"
_SHORTEST = 8  # letters of a secret that is masked outside of URLs; a shorter one may be a word

# `scheme://user:password@`; a password may hold `/`, unless it looks like the port of a host
_PASSWORD = re.compile(
    r"""(?P<user>\b[a-z][a-z0-9+.-]*://[^\s/?\#:@'"<>`]*:)(?!\d{1,5}(?:[/?\#]|$))[^\s'"<>`]*@"""
    r"""|(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/?\#:@'"<>`]+@""",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"""([?&;](?:[\w.-]*[_.-])?(?:ssl)?(?:password|passwd|pwd|pass|passphrase|token|secret|"""
    r"""signature|sig|credential|credentials|auth|(?:api|access|private|secret)?_?key)=)"""
    r"""[^\s&;\#'"<>`]+""",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|SECRET_ACCESS_KEY|API_KEY)$")
_USER_INFO = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://(?P<user>[^:@/]*):(?P<password>.*)@")
_PASSWORD_OR_OPTIONS = re.compile(r"[^@]*://[^@/]*:.*@|.*[?&#]")


def masked(text: str) -> str:
    """Return a text with `***` in place of every secret that it shows.

    Secrets are passwords and tokens before the host of a URL and in its query, and the values of
    the environment that look like one, wherever they occur.
    """
    for secret in _environment_secrets():
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _PASSWORD.sub(_mask_user_info, text)
    if "=" in text:
        text = _QUERY.sub(rf"\g<1>{MASK}", text)
    return text


def without_user_info(url: str) -> str:
    """Return a URL without user and password, for a browser."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + re.sub(r"^[^/?#]*@", "", rest)


def mask_output() -> None:
    """Mask the tracebacks, log messages and warnings that Python prints in this process."""
    sys.excepthook = _print_exception
    threading.excepthook = _print_thread_exception
    if logging.getLogRecordFactory() is not _log_record:
        logging.setLogRecordFactory(_log_record)
    warnings.formatwarning = _format_warning


class MaskedStream:
    """A text stream that masks what is written to it.

    Args:
        stream: stream for the masked text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        return self._stream.write(masked(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _mask_user_info(match: re.Match[str]) -> str:
    return f"{match['user'] or match['scheme']}{MASK}@"


def _environment_secrets() -> Iterator[str]:
    """Yield the secrets of the environment that are long enough not to be a word."""
    for name, value in os.environ.items():
        found = []
        if match := _USER_INFO.match(value):
            if match["password"] != match["user"]:
                found = [match["password"], unquote(match["password"])]
        elif _VARIABLE.search(name):
            found = [value]
        yield from (secret for secret in found if len(secret) >= _SHORTEST)


# hooks of Python ----------------------------------------------------------------------------


_plain_log_record = logging.getLogRecordFactory()
_plain_format_warning = warnings.formatwarning


def _printable(text: str) -> str:
    return visible(masked(text))


def _print_exception(kind: Any, error: Any, trace: Any) -> None:
    sys.stderr.write(_printable("".join(traceback.format_exception(kind, error, trace))))


def _print_thread_exception(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread else "unknown"
        sys.stderr.write(f"Exception in thread {name}:\n")
        _print_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _log_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _plain_log_record(*args, **kwargs)
    try:
        record.msg, record.args = _printable(record.getMessage()), None
    except Exception:  # noqa: BLE001 - logging reports a message that does not fit its arguments
        return record
    if record.exc_info and record.exc_info[1]:
        text = "".join(traceback.format_exception(record.exc_info[1]))
        record.exc_text = _printable(text.rstrip())
    return record


def _format_warning(*args: Any, **kwargs: Any) -> str:
    return _printable(_plain_format_warning(*args, **kwargs))


def has_secret(url: str) -> bool:
    """Return True if a URL has a password, or options, which may be one."""
    return _PASSWORD_OR_OPTIONS.match(url) is not None
