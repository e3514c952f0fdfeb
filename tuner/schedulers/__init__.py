"""The schedulers: which trials are stopped, parked, brought back and copied."""

from __future__ import annotations
