"""What reasons cost: processor time of each part in µs per event, in micro-batches of 512 of which about half are not approved.

    python bench/reasons.py [--rounds 5] [--batch 512] [--json]

Payments under the model that comes with the program; the approve cut lies at the median of what it believes, so that every second event
has to be told. Each line adds one part to the pipeline; `more` is what it adds to planning, deciding and writing the verdict.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamapp import pipeline
from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.release import load_serving
from streamapp.core.costs import CostsSection
from streamapp.core.events import Segment
from streamapp.core.labels import LabelRead
from streamapp.core.route import APPROVE
from streamapp.core.shared import SharedRead
from streamapp.core.spec import PipelineSpec, ReasonsSection

ROOT = Path(__file__).resolve().parents[1]
COUNT = 512 * 24
MIX = PaymentMix(seed=33, customers=2_000, terminals=4_000, stolen=0.01)


def segments(batch: int) -> list[Segment]:
    """Gives generated payments as micro-batches."""
    stream = payments(COUNT, MIX)
    found, first = [], 0
    while values := [record.value for record in islice(stream, batch)]:
        events = [msgspec.json.decode(value or b"") for value in values]
        times = np.array([event["event_time"] for event in events], np.int64)
        keys = [event["customer_id"].encode() for event in events]
        found.append(Segment("bench", 0, 1, np.arange(first, first + len(values)), times, keys, values, [()] * len(values)))
        first += len(values)
    return found


def passed(serving: pipeline.Serving, batches: list[Segment]) -> tuple[dict[str, float], float, np.ndarray[Any, Any]]:
    """Gives µs per event in `decide` by stage and in writing, the share that is not approved, and what was believed."""
    spent: dict[str, float] = {}
    state, shared, labels = serving.state.new(), serving.shared.new(), serving.labels.new()
    told, believed = 0, []
    for one in batches:
        plan = pipeline.plan((one,), serving)
        read = pipeline.Read(shared=SharedRead(serving.shared.asks(plan), shared), labels=LabelRead(labels))
        began = time.process_time()
        outcome = pipeline.decide(plan, read, [state], serving, 0, time.process_time)
        decided = time.process_time()
        serving.encoder.verdicts(outcome)
        written = time.process_time()
        for name, seconds in (("decide", decided - began), ("write", written - decided)):
            spent[name] = spent.get(name, 0.0) + seconds
        spent["explain"] = spent.get("explain", 0.0) + outcome.stage_ms["explain"] / 1e3
        told += int((outcome.route != APPROVE).sum())
        believed.append(outcome.probability)
    events = sum(map(len, batches))
    return {name: seconds / events * 1e6 for name, seconds in spent.items()}, told / events, np.concatenate(believed)


def serving_of(spec: PipelineSpec) -> pipeline.Serving:
    """Gives the shipped model under this spec."""
    return load_serving(spec, ROOT / "models", b"bench-key-16-byte", load_model, latest_version)


def measured(rounds: int, batch: int) -> dict[str, Any]:
    """Gives everything the bench says, JSON-ready."""
    batches, spec = segments(batch), load_pipeline("payments")
    _, _, believed = passed(serving_of(spec), batches)
    middle, high = np.nanquantile(believed, (0.5, 0.9)).tolist()
    cut = msgspec.structs.replace(spec.thresholds, approve=middle, block=max(high, middle))
    plain = ReasonsSection()
    fields = tuple(name for name in spec.verdict.named(()) if name != "reasons")
    silent = msgspec.structs.replace(spec, thresholds=cut, reasons=plain, verdict=msgspec.structs.replace(spec.verdict, fields=fields))
    told = msgspec.structs.replace(silent, verdict=spec.verdict)
    normal = msgspec.structs.replace(told, reasons=ReasonsSection(normal=spec.reasons.normal))
    otherwise = msgspec.structs.replace(told, reasons=msgspec.structs.replace(spec.reasons, counterfactual_rows=batch))
    costs = CostsSection(miss=100.0, false_alarm=100.0 * middle / max(1e-9, 1 - middle), miss_share=0.01, amount="amount")
    by_cost = msgspec.structs.replace(otherwise, costs=costs, thresholds=msgspec.structs.replace(cut, approve="cost", block="cost"))
    ways = {
        "no reasons": silent, "rules and shares of the model": told, "+ what is normal": normal, "+ counterfactuals": otherwise,
        "+ costs by amount": by_cost,
    }  # fmt: skip
    servings = {name: serving_of(one) for name, one in ways.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    shares: dict[str, float] = {}
    for round_number in range(rounds + 1):
        for name, serving in servings.items():
            spent, shares[name], _ = passed(serving, batches)
            if round_number:  # the first one warms up
                found[name].append(spent)
    middle_of = {
        name: {part: statistics.median(one[part] for one in each) for part in each[0]} | {"not_approved": shares[name]}
        for name, each in found.items()
    }
    return {"batch": batch, "events": COUNT, "rounds": rounds, "us_per_event": middle_of}


def main() -> None:
    parser = argparse.ArgumentParser(description="What reasons cost, part by part.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    wanted = parser.parse_args()
    found = measured(wanted.rounds, wanted.batch)
    if wanted.json:
        print(json.dumps(found))
        return
    print(f"µs per event in micro-batches of {found['batch']}, median of {found['rounds']} rounds of {found['events']:,} payments")
    print(f"{'':32} {'not approved':>12} {'decide':>8} {'explain':>8} {'write':>7} {'more':>7}")
    base = None
    for name, row in found["us_per_event"].items():
        whole = row["decide"] + row["write"]
        base = whole if base is None else base
        print(f"{name:32} {row['not_approved']:12.0%} {row['decide']:8.2f} {row['explain']:8.2f} {row['write']:7.2f} {whole - base:7.2f}")


if __name__ == "__main__":
    main()
