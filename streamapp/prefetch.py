"""What is read for a micro-batch between plan and decide: profiles, shared windows, labels and lists, one round trip each at most."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from streamapp import pipeline
from streamapp.core.events import Plan
from streamapp.core.shared import SharedPlan
from streamapp.ports import KnownLabels, KnownLists, Profiles, SharedWindows

Prefetch = Callable[[Plan, pipeline.Serving], Awaitable[pipeline.Read]]


async def nothing_to_read(plan: Plan, serving: pipeline.Serving) -> pipeline.Read:
    """Prefetch of a pipeline without a profile store: all profile features are missing, and say so."""
    return pipeline.Read()


def reading(plan: SharedPlan, windows: SharedWindows, profiles: Profiles | None = None) -> Prefetch:
    """Gives the prefetch of a pipeline: profiles are asked for first and awaited last; the texts are read while they are on their way.

    One round trip per micro-batch for the profiles that the process does not know, one to bring its copy of the shared windows up to date.
    """

    async def prefetch(one: Plan, serving: pipeline.Serving) -> pipeline.Read:
        if profiles is None:
            brought = await windows.read(plan.asks(one))
            return pipeline.Read(degraded=brought.degraded, shared=brought)
        question = await profiles.ask(one.column(serving.spec.pipeline.key))
        began = time.perf_counter()
        texts = serving.features.read_texts(one)
        texts_ms = round((time.perf_counter() - began) * 1e3, 3)
        shared = await windows.read(plan.asks(one)) if plan.stores else None
        known = await profiles.answer(question)
        degraded = known.degraded if shared is None else (*known.degraded, *shared.degraded)
        return pipeline.Read(known.values, degraded, shared, texts, texts_ms)

    return prefetch


def knowing(prefetch: Prefetch, labels: KnownLabels) -> Prefetch:
    """Gives the prefetch that adds what turned out to be true, as far as this worker knows when the micro-batch is decided."""

    async def both(one: Plan, serving: pipeline.Serving) -> pipeline.Read:
        read, known = await prefetch(one, serving), labels.read()
        return replace(read, labels=known, degraded=(*read.degraded, *known.degraded))

    return both


def listing(prefetch: Prefetch, lists: KnownLists) -> Prefetch:
    """Gives the prefetch that adds what is on the lists, as far as this worker knows when the micro-batch is decided."""

    async def both(one: Plan, serving: pipeline.Serving) -> pipeline.Read:
        read = await prefetch(one, serving)
        table, degraded = lists.read()
        return replace(read, lists=table, degraded=(*read.degraded, *degraded))

    return both
