"""Laws of labels: order, repetition and cuts change no window, and a window is what its definition says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.label_line import DAY_MS, SERVING, ask, label, records

NAMES = SERVING.features.names
HOUR_MS = 3_600_000
WORDS = ("fraud", "stolen", "genuine", "unknown")
VALUE = {"fraud": 1, "stolen": 1, "genuine": 0, "unknown": -1}


@dataclass(frozen=True)
class Said:
    event: int
    time: int
    told: int
    word: str
    weight: int  # thousandths
    terminal: str

    def record(self) -> dict[str, Any]:
        return label(f"e{self.event}", self.time, self.word, self.terminal, labelled_at=self.told, weight=self.weight / 1000)


said = st.builds(
    Said,
    event=st.integers(0, 12),
    time=st.integers(0, 40).map(lambda hours: hours * 6 * HOUR_MS),
    told=st.integers(0, 5).map(lambda hours: 300 * HOUR_MS + hours),
    word=st.sampled_from(WORDS),
    weight=st.sampled_from((0, 250, 500, 1000)),
    terminal=st.sampled_from(("t", "u")),
)


def last_words(labels: list[Said]) -> list[Said]:
    """Gives the last word on each event; ties of everything that orders words are left out by the strategy of the test."""
    last: dict[int, Said] = {}
    for one in labels:
        key = (one.told, VALUE[one.word], one.weight, one.time)
        known = last.get(one.event)
        if known is None or key > (known.told, VALUE[known.word], known.weight, known.time):
            last[one.event] = one
    return [one for one in last.values() if VALUE[one.word] >= 0]


def brute(labels: list[Said], at: int, terminal: str, days: int) -> tuple[int, float]:
    held = [
        one for one in last_words(labels) if one.terminal == terminal and at - (7 + days) * DAY_MS < one.time <= at - 7 * DAY_MS
    ]  # fmt: skip
    weight = sum(one.weight for one in held)
    return len(held), sum(one.weight for one in held if VALUE[one.word] == 1) / weight if weight else 0.0


def one_terminal_each(labels: list[Said]) -> list[Said]:
    """Two words that differ in nothing but their terminal have no order; there an event keeps to one."""
    return [Said(one.event, one.time, one.told, one.word, one.weight, "tu"[(one.told + one.time) % 2]) for one in labels]


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(said, max_size=40).map(one_terminal_each), data=st.data())
def test_windows_hold_the_last_words_however_they_came(labels: list[Said], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(labels))))
    repeated = [labels[place] for place in order for _ in range(data.draw(st.integers(1, 2)))]
    known = SERVING.labels.new()
    at = 0
    while at < len(repeated):
        size = data.draw(st.integers(1, 10))
        part = repeated[at : at + size]
        known.take(SERVING.labels.decode([records([one.record() for one in part], [400 * HOUR_MS] * len(part))]))
        at += size
    times = sorted(data.draw(st.lists(st.integers(25, 80).map(lambda steps: steps * 6 * HOUR_MS), min_size=1, max_size=6)))
    for terminal in ("t", "u"):
        _, values = ask(known, times, terminal)
        for row, time in enumerate(times):
            found = dict(zip(NAMES, values[row].tolist(), strict=True))
            for days in (1, 7, 30):
                count, risk = brute(labels, time, terminal, days)
                assert found[f"known_{days}d_count"] == count
                np.testing.assert_allclose(found[f"known_{days}d_risk"], risk, rtol=0, atol=1e-12)
