"""Where messages go: webhooks signed as Standard Webhooks says, and whatever Apprise knows.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml

from tuner.errors import TunerError
from tuner.notify.message import Message

SECRET = "TUNER_WEBHOOK_SECRET"  # environment variable
URLS = "TUNER_NOTIFY"  # environment variable: URLs, apart by white space
_PREFIX = "whsec_"
_HTTP = ("http", "https")
_TIMEOUT_SECONDS = 10.0
_LONGEST = 20  # characters of a scheme; what is longer may be a token
_LONGEST_REASON = 100  # characters of a receiver's words in a message


class NotDelivered(Exception):  # noqa: N818 - the name states the problem
    """A receiver has not taken a message; it may take it later."""


class Receiver(Protocol):
    """Somebody who gets messages.

    Attributes:
        key: digest of the receiver's URL, which may hold a secret, for the list of deliveries.
        name: what people may see of the URL: scheme, host and port of http, else the scheme.
    """

    key: str
    name: str

    def send(self, message: Message) -> None:
        """Deliver a message.

        Raises:
            NotDelivered: if it was not taken.
        """


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: what follows them is a GET without the message, to any host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return no other request, so that the status is an error."""


_opener = urllib.request.build_opener(NoRedirects)


class Webhook(Receiver):
    """A URL that gets each message as a signed POST.

    Args:
        url: http or https; a user and a password in it are sent as HTTP's basic login.
        secret: key of the signatures; None for unsigned messages.

    Raises:
        TunerError: if it is no URL.
    """

    def __init__(self, url: str, secret: bytes | None) -> None:
        self.key, self.name, self._secret = _key_of(url), _name_of(url), secret
        try:
            parts = urlsplit(url)
            _ = parts.port  # a ValueError if it is none
        except ValueError:  # its text has parts of the URL, as of a password with a slash
            raise TunerError(
                f"--notify {self.name} is no URL: host or port cannot be read; write /, @, : and ? "
                f"in a user or a password as %2F, %40, %3A and %3F"
            ) from None
        if not parts.hostname or not _is_plain(parts.netloc):
            raise TunerError(
                f"--notify {self.name} is no URL: it has no host, or white space in it"
            )
        rest = parts.path + parts.query
        if any(not "!" <= character <= "~" for character in rest):
            raise TunerError(
                f"--notify {self.name} is no URL: behind the host is white space, a control "
                f"character or a letter beyond ASCII; write them as %20, …"
            )
        user, _, host = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=host))
        login = base64.b64encode(unquote(user).encode()).decode()
        self._login = {"authorization": f"Basic {login}"} if user else {}

    def send(self, message: Message) -> None:  # noqa: D102 - as in Receiver
        body = json.dumps(message.as_json, allow_nan=False).encode()
        at = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "user-agent": "tuner",
            "webhook-id": message.id,
            "webhook-timestamp": at,
            **self._login,
        }
        if self._secret is not None:
            signed = b".".join((message.id.encode(), at.encode(), body))
            digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with _opener.open(request, timeout=_TIMEOUT_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            hint = ", and redirects are not followed" if 300 <= error.code < 400 else ""
            reason = str(error.reason)[:_LONGEST_REASON]
            raise NotDelivered(f"it answers {error.code} {reason}{hint}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))[:_LONGEST_REASON]
            raise NotDelivered(reason) from error


class AppriseReceiver(Receiver):
    """A URL of Apprise, such as slack:// or mailto://.

    Args:
        url: the URL.

    Raises:
        TunerError: if Apprise is missing, or does not know such URLs.
    """

    def __init__(self, url: str) -> None:
        try:
            import apprise
        except ImportError as error:
            raise TunerError(
                f"--notify {_name_of(url)} needs Apprise; pip install 'tuner[notify]', or give an "
                f"https:// URL"
            ) from error
        self._apprise = apprise.Apprise()
        if not self._apprise.add(url):
            raise TunerError(f"--notify {_name_of(url)} is no URL that Apprise knows")
        self.key, self.name = _key_of(url), _name_of(url)

    def send(self, message: Message) -> None:  # noqa: D102 - as in Receiver
        if not self._apprise.notify(title=f"tuner: {message.search}", body=message.text):
            raise NotDelivered("Apprise could not deliver it")


def receivers_of(urls: Sequence[str]) -> list[Receiver]:
    """Return the receivers of a command line, of the environment, and of the user's file.

    Args:
        urls: values of --notify.

    Raises:
        TunerError: if a URL, the file or the secret cannot be used.
    """
    secret = _secret()
    return [
        Webhook(url, secret) if url.partition("://")[0].lower() in _HTTP else AppriseReceiver(url)
        for url in dict.fromkeys([*urls, *_urls_of_environment(), *_urls_of_file()])
    ]


def notify_file() -> Path:
    """Return the path of the user's file: notify.yaml in the folder of configurations."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "tuner", "notify.yaml")


def environment_of(urls: Sequence[str]) -> dict[str, str]:
    """Return variables with which another process has these receivers, and those of this one.

    Its command line could be read by every user of the machine, and URLs hold tokens.
    """
    every = [*_urls_of_environment(), *urls]
    return {URLS: " ".join(every)} if every else {}


def _urls_of_environment() -> list[str]:
    return os.environ.get(URLS, "").split()


def _urls_of_file() -> list[str]:
    path = notify_file()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise TunerError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    urls = content.get("notify") if isinstance(content, dict) else None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise TunerError(f"{path} must be a mapping with a list of URLs, as notify: [https://…]")
    return urls


def _secret() -> bytes | None:
    text = os.environ.get(SECRET)
    if not text:
        return None
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise TunerError(
            f"{SECRET} is no secret of a webhook: it is {_PREFIX} and a key in base64"
        ) from error


def _key_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text


def _name_of(url: str) -> str:
    """Return scheme, host and port of http, else the scheme: the rest may be a secret."""
    try:
        parts = urlsplit(url)
        if parts.scheme in _HTTP and parts.hostname and _is_plain(parts.netloc):
            port = f":{parts.port}" if parts.port else ""
            return f"{parts.scheme}://{parts.hostname}{port}/…"
    except ValueError:
        pass
    scheme, separator, _ = url.partition("://")
    is_scheme = separator and scheme.isascii() and scheme.isalnum() and len(scheme) <= _LONGEST
    return f"{scheme}:…" if is_scheme else "…"
