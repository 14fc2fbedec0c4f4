"""Trap: Faust's own web answers OK whatever happens and shows table data; ours stays closed, and health has a port of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import faust
from faust.web import base
from faust.web.apps.production_index import Index

from streamapp.bus.app import build_app


async def test_fausts_index_says_ok_without_looking() -> None:
    """Pins Faust's present behaviour: the page reads nothing of the app (it has none here), and answers OK."""
    blind: Any = SimpleNamespace(json=lambda value: value)
    assert await Index.get(blind, None) == {"status": "OK"}
    assert "/table" in [path for path, _ in base.DEFAULT_BLUEPRINTS]


def test_fausts_web_is_on_by_default_and_off_in_ours() -> None:
    assert faust.App("plain", broker="memory://").conf.web_enabled
    assert not build_app("ours", "localhost:9092").conf.web_enabled
