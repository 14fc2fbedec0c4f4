"""What do rules, lists, profiles, reasons and costs cost together? µs per event of `payments` with all of them against none of them.

    python bench/additions.py [--rounds 5] [--batch 512] [--profiles 1000000] [--json]

30 rules, 100,000 entries of lists, profiles in a redis-server of the run's own, contributions with what is normal, counterfactuals,
costs by amount. Once as few events are held as the shipped cuts hold, once with the cut where every second event is not approved. Both
ways decide the same events under the same model and windows and write the verdict; `more` is the difference. Processor time of this
process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import ground
import msgspec
import numpy as np
import profiles as kept
from reasons import serving_of
from ruling import PAYMENT_RULES, RULES, rules, table_of
from shared import redis_server

from streamapp import pipeline
from streamapp.adapters.profiles_redis import RedisProfiles
from streamapp.config import load_pipeline
from streamapp.control.payments import PaymentMix, payments
from streamapp.core.costs import CostsSection
from streamapp.core.events import Segment
from streamapp.core.features.profile import compute
from streamapp.core.labels import LabelRead
from streamapp.core.lists_table import ListTable
from streamapp.core.route import APPROVE
from streamapp.core.shared import SharedRead
from streamapp.core.spec import ListSpec, PipelineSpec, ReasonsSection

COUNT, ENTRIES = 512 * 24, 100_000
MIX = PaymentMix(seed=33, customers=20_000, terminals=40_000, stolen=0.01)
LISTS = {
    "banned": ListSpec(effect="deny", fields=("customer_id",)), "addresses": ListSpec(effect="deny", fields=("ip",)),
    "trusted": ListSpec(effect="allow", fields=("device_id",)),
}  # fmt: skip


def segments(batch: int) -> list[Segment]:
    """Gives generated payments as micro-batches."""
    found: list[Segment] = []
    stream = payments(COUNT, MIX)
    while records := list(islice(stream, batch)):
        values, keys, first, n = [one.value for one in records], [one.key for one in records], batch * len(found), len(records)
        times = np.array([msgspec.json.decode(value or b"")["event_time"] for value in values], np.int64)
        found.append(Segment("bench", 0, 1, np.arange(first, first + n), times, keys, values, [()] * n))
    return found


async def passed(
    serving: pipeline.Serving, batches: Sequence[Segment], table: ListTable | None, profiles: RedisProfiles | None
) -> tuple[dict[str, float], float, Any]:
    """Gives µs per event of asking, of deciding (lists, rules and reasons of it apart) and of writing, what is held, what is believed."""
    spent = dict.fromkeys(("profiles", "decide", "write", "lists", "rules", "explain"), 0.0)
    state, shared, labels = serving.state.new(), serving.shared.new(), serving.labels.new()
    held, believed = 0, []
    for one in batches:
        plan = pipeline.plan((one,), serving)
        began = time.process_time()
        if profiles is not None:
            known = await profiles.answer(await profiles.ask([f"user-{int(name[1:])}" for name in plan.column("customer_id")]))
            if known.degraded:
                raise SystemExit(f"redis: {known.degraded}")
            compute(kept.FEATURES, kept.PLAN.columns, known.values, plan.event_time)
        asked = time.process_time()
        read = pipeline.Read(shared=SharedRead(serving.shared.asks(plan), shared), labels=LabelRead(labels), lists=table)
        outcome = pipeline.decide(plan, read, [state], serving, 0, time.process_time)
        decided = time.process_time()
        serving.encoder.verdicts(outcome)
        spent["profiles"] += asked - began
        spent["decide"] += decided - asked
        spent["write"] += time.process_time() - decided
        for stage in ("lists", "rules", "explain"):
            spent[stage] += outcome.stage_ms.get(stage, 0.0) / 1e3
        held += int((outcome.route != APPROVE).sum())
        believed.append(outcome.probability)
    return {name: seconds / COUNT * 1e6 for name, seconds in spent.items()}, held / COUNT, np.concatenate(believed)


def ways(spec: PipelineSpec, approve: float, block: float, batch: int) -> tuple[PipelineSpec, PipelineSpec]:
    """Gives the pipeline with none of the additions, and with all of them, both holding what is believed to be above the cut."""
    cut = msgspec.structs.replace(spec.thresholds, approve=approve, block=block)
    silent = tuple(name for name in spec.verdict.named(()) if name != "reasons")
    none = msgspec.structs.replace(
        spec, thresholds=cut, rules=(), lists={}, reasons=ReasonsSection(), verdict=msgspec.structs.replace(spec.verdict, fields=silent)
    )
    costs = CostsSection(miss=100.0, false_alarm=100.0 * approve / max(1e-9, 1 - approve), miss_share=0.01, amount="amount")
    every = msgspec.structs.replace(
        spec, thresholds=msgspec.structs.replace(cut, approve="cost", block="cost"), costs=costs, lists={**spec.lists, **LISTS},
        rules=(*spec.rules, *rules(PAYMENT_RULES, RULES - len(spec.rules))),
        reasons=msgspec.structs.replace(spec.reasons, counterfactual_rows=batch),
    )  # fmt: skip
    return none, every


async def measured(rounds: int, batch: int, stored: int, address: str) -> dict[str, Any]:
    """Gives everything the bench says, JSON-ready."""
    batches, spec = segments(batch), load_pipeline("payments")
    _, shipped, believed = await passed(serving_of(spec), batches, None, None)
    profiles = RedisProfiles(kept.PLAN, f"redis://{address}/0", "bench", 1000)
    told: dict[str, Any] = {"machine": ground.machine(), "batch": batch, "events": COUNT, "profiles": stored, "held_as_shipped": shipped}
    for case, share in (("as shipped", max(shipped, 0.001)), ("half", 0.5)):
        approve, block = np.nanquantile(believed, (1 - share, 1 - share / 5)).tolist()
        plain, every = (serving_of(one) for one in ways(spec, approve, max(block, approve), batch))
        entries = [(name, f"{name}-{number}", "exact") for name in LISTS for number in range(ENTRIES // len(LISTS))]
        table, _ = table_of(every, entries)
        found: dict[str, list[dict[str, float]]] = {"none": [], "all": []}
        held: dict[str, float] = {}
        for number in range(rounds + 1):
            for way, serving, listed, asked in (("none", plain, None, None), ("all", every, table, profiles)):
                spent, held[way], _ = await passed(serving, batches, listed, asked)
                if number:  # the first one warms up
                    found[way].append(spent)
        more = [sum(a[p] - b[p] for p in ("profiles", "decide", "write")) for a, b in zip(found["all"], found["none"], strict=True)]
        told[case] = {
            "not_approved": {way: round(one, 3) for way, one in held.items()},
            "us_per_event": {way: {part: ground.spread([e[part] for e in each]) for part in each[0]} for way, each in found.items()},
            "more_us_per_event": ground.spread(more),
        }
    await profiles.close()
    return told


async def main(given: argparse.Namespace) -> dict[str, Any]:
    """Fills a store and measures."""
    with redis_server() as (address, _):
        await kept.fill(address, given.profiles)
        return await measured(given.rounds, given.batch, given.profiles, address)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    wanted = parser.parse_args()
    figures = asyncio.run(main(wanted))
    if wanted.json:
        print(json.dumps(figures))
    else:
        print(f"µs per event in micro-batches of {wanted.batch}, median of {wanted.rounds} rounds of {COUNT:,} payments")
        for name in ("as shipped", "half"):
            for with_all, parts in figures[name]["us_per_event"].items():
                shown = ", ".join(f"{part} {one['median']:.2f}" for part, one in parts.items())
                print(f"{name:12} {with_all:5} not approved {figures[name]['not_approved'][with_all]:5.1%}  {shown}")
            more_us = figures[name]["more_us_per_event"]
            print(f"{name:12} more  {more_us['median']:.2f} ({more_us['least']:.2f} to {more_us['largest']:.2f})")
