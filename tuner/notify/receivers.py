"""Where messages go: webhooks signed as Standard Webhooks says, and whatever Apprise knows.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import yaml

from tuner.errors import TunerError
from tuner.notify.message import Message

SECRET = "TUNER_WEBHOOK_SECRET"  # environment variable
_PREFIX = "whsec_"
_TIMEOUT_SECONDS = 10.0


class NotDelivered(Exception):  # noqa: N818 - the name states the problem
    """A receiver has not taken a message; it may take it later."""


class Receiver(Protocol):
    """Somebody who gets messages.

    Attributes:
        key: digest of the receiver's URL, which may hold a secret, for the list of deliveries.
        name: scheme and host of the URL, for people.
    """

    key: str
    name: str

    def send(self, message: Message) -> None:
        """Deliver a message.

        Raises:
            NotDelivered: if it was not taken.
        """


class Webhook(Receiver):
    """A URL that gets each message as a signed POST.

    Args:
        url: http or https.
        secret: key of the signatures; None for unsigned messages.
    """

    def __init__(self, url: str, secret: bytes | None) -> None:
        self._url, self._secret = url, secret
        self.key, self.name = _key_of(url), _name_of(url)

    def send(self, message: Message) -> None:  # noqa: D102 - as in Receiver
        body = json.dumps(message.as_json, allow_nan=False).encode()
        at = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "user-agent": "tuner",
            "webhook-id": message.id,
            "webhook-timestamp": at,
        }
        if self._secret is not None:
            signed = b".".join((message.id.encode(), at.encode(), body))
            digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                pass
        except urllib.error.HTTPError as error:
            raise NotDelivered(f"it answers {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            raise NotDelivered(str(getattr(error, "reason", error))) from error


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
    """Return the receivers of a command line, and those of the user's file.

    Args:
        urls: values of --notify.

    Raises:
        TunerError: if a URL, the file or the secret cannot be used.
    """
    secret = _secret()
    return [
        Webhook(url, secret) if urlsplit(url).scheme in {"http", "https"} else AppriseReceiver(url)
        for url in dict.fromkeys([*urls, *_urls_of_file()])
    ]


def notify_file() -> Path:
    """Return the path of the user's file: notify.yaml in the folder of configurations."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "tuner", "notify.yaml")


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


def _name_of(url: str) -> str:
    """Return scheme and host: the rest may be a secret."""
    try:
        parts = urlsplit(url)
        if parts.scheme and parts.netloc:
            return f"{parts.scheme}://{parts.hostname or '…'}/…"
    except ValueError:
        pass
    return f"{url.partition(':')[0][:20]}:…"
