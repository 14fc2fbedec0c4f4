"""A log while a broker is away: each kind of record of a library a few times in ten seconds."""

from __future__ import annotations

import logging

import pytest

from streamapp.cli.sparing import EACH_MAX, PERIOD_S, Sparing


def record(words: str, *about: object, at_s: float, name: str = "aiokafka", level: int = logging.ERROR) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "", 0, words, about, None)
    made.created = at_s
    return made


@pytest.fixture
def sparing() -> Sparing:
    return Sparing(["aiokafka", "mode"])


def test_what_repeats_is_written_a_few_times_and_counted(sparing: Sparing) -> None:
    written = [sparing.filter(record("no node %s", number, at_s=100.0)) for number in range(5_000)]
    assert sum(written) == EACH_MAX and all(written[:EACH_MAX])
    later = record("no node %s", 7, at_s=100.0 + PERIOD_S)
    assert sparing.filter(later) and later.getMessage() == "no node 7 (4,995 more like it were left out)"
    again = record("no node %s", 8, at_s=100.0 + PERIOD_S)
    assert sparing.filter(again) and again.getMessage() == "no node 8"


def test_another_kind_is_never_left_out_for_it(sparing: Sparing) -> None:
    for _ in range(100):
        sparing.filter(record("no node", at_s=5.0))
    assert sparing.filter(record("partition lost", at_s=5.0))
    assert sparing.filter(record("no node", at_s=5.0, name="mode"))
    assert sparing.filter(record("no node", at_s=5.0, level=logging.INFO))


def test_what_is_ours_is_always_written(sparing: Sparing) -> None:
    # A worker tells of each of its partitions in the same words.
    own = "streamapp.bus.recovery"
    assert all(sparing.filter(record("Partition %d goes on", number, at_s=5.0, name=own, level=logging.INFO)) for number in range(100))


def test_a_clock_that_is_set_back_begins_a_period(sparing: Sparing) -> None:
    for _ in range(100):
        sparing.filter(record("no node", at_s=1_000.0))
    assert sparing.filter(record("no node", at_s=10.0))
