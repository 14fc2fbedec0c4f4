"""Slow tiers beside the loop: what they manage in time counts, the rest is named, and a call that hangs is not waited for twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from streamapp.adapters.aside import Aside
from streamapp.core.conditions import Columns
from streamapp.core.tiers import Plugin, Question, Tier
from streamapp.core.vectorise import Inputs

WORDS = ["a", "b", None, "d", "e", "f", "g"]
NONE = Inputs(np.empty((7, 0), np.float32), None)


def question(call: Callable[[Mapping[str, Any]], Any], time_ms: int = 400, rows_per_call: int = 2) -> Question:
    columns = Columns({"text": WORDS, "length": np.arange(7.0)}.__getitem__, 7)
    plugin = Plugin("mine:call", "1", call, {"text": False, "length": True})
    tier = Tier("heavy", None, 0.1, 0.9, plugin=plugin, time_ms=time_ms, rows_per_call=rows_per_call)
    return Question(tier, np.array([6, 2, 0, 4, 1]), NONE, columns)


async def test_a_callable_is_given_its_columns_piece_by_piece_in_the_order_of_urgency() -> None:
    seen: list[tuple[list[str | None], list[float]]] = []

    def call(columns: Mapping[str, Any]) -> Any:
        seen.append((columns["text"], columns["length"].tolist()))
        return columns["length"] / 10

    answer = await Aside().ask(question(call))
    assert answer.values[:, 0].tolist() == [0.6, 0.2, 0.0, 0.4, 0.1] and answer.cause is None
    assert seen == [(["g", None], [6.0, 2.0]), (["a", "e"], [0.0, 4.0]), (["b"], [1.0])]


async def test_what_is_answered_in_time_counts_and_the_loop_goes_on_meanwhile() -> None:
    late, ticks = threading.Event(), 0

    def call(columns: Mapping[str, Any]) -> Any:
        if columns["text"][0] == "a":
            late.wait()
        return np.full(len(columns["text"]), 0.5)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    aside, beating = Aside(), asyncio.create_task(tick())
    answer = await aside.ask(question(call, time_ms=60))
    assert answer.cause == "time_budget" and np.isnan(answer.values[:, 0]).tolist() == [False, False, True, True, True]
    assert ticks > 10
    hanging = await aside.ask(question(call))
    assert hanging.cause == "busy" and np.isnan(hanging.values).all(), "nobody waits for a call that overran its time"
    late.set()
    again = hanging
    while again.cause == "busy":
        again = await aside.ask(question(lambda columns: np.zeros(len(columns["text"]))))
    assert again.values[:, 0].tolist() == [0.0] * 5, "it is asked again as soon as it came back"
    beating.cancel()


async def test_what_a_callable_does_wrong_is_named_and_costs_only_what_it_did_not_answer() -> None:
    def fails(columns: Mapping[str, Any]) -> Any:
        if columns["text"][0] == "b":
            raise KeyError("x")
        return [0.5] * len(columns["text"])

    answer = await Aside().ask(question(fails))
    assert answer.cause == "KeyError" and np.isnan(answer.values[:, 0]).tolist() == [False] * 4 + [True]
    for wrong in (lambda columns: [0.5], lambda columns: [2.0] * len(columns["text"]), lambda columns: "no"):
        refused = await Aside().ask(question(wrong))
        assert refused.cause in ("ModelFailed", "ValueError") and np.isnan(refused.values).all()
