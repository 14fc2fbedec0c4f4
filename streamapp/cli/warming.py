"""What a worker compiles, or loads from the cache, before its first event; the line itself is rehearsed by whoever loads its models."""

from __future__ import annotations

from streamapp import pipeline
from streamapp.bus import journal
from streamapp.core import fetched, label_book, murmur2, observe, record_batch, statistics, windows, windows_moves


def warm_up(serving: pipeline.Serving) -> None:
    """Runs every kernel around the line once. The first time on a machine that takes a minute or two, later less than a second."""
    observe.warm_up()
    journal.warm_up(serving.state)
    windows.warm_up()
    windows_moves.warm_up()
    if serving.labels.stores:
        label_book.warm_up()
    record_batch.warm_up()
    fetched.warm_up()
    murmur2.warm_up()
    statistics.warm_up()
