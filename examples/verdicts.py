"""Five verdicts of the `payments` pipeline as people read them: approved, blocked by a rule, by the model, held for people, degraded.

    python examples/verdicts.py            writes docs/verdicts.md and the section of the README between its two marks
    python examples/verdicts.py --check    says whether they are what the line gives now; exits 1 where they are not

Generated payments go through the line with the model that comes with the program; the first of each kind is taken.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streamapp import pipeline
from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.payments import PaymentMix, payments
from streamapp.control.release import load_serving
from streamapp.core.cascade import Degraded
from streamapp.core.events import Segment
from streamapp.core.labels import LabelRead
from streamapp.core.outcome import Outcome
from streamapp.core.shared import SharedRead

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / "docs" / "verdicts.md", ROOT / "README.md"
BEGIN, END = "<!-- verdicts: python examples/verdicts.py -->", "<!-- end of verdicts -->"
MIX = PaymentMix(seed=21, customers=400, terminals=800, stolen=0.01, burst=0.2)
COUNT, WARM, BATCH = 24_000, 8_000, 1_000
KEY = b"streamapp-development-key"
#: What of a verdict says why; ids, times, hashes and the place in the source are left out.
TOLD = ("verdict", "decided_by", "score", "probability", "threshold", "reasons", "degraded", "flags")
OTHERWISE = {"counterfactual_approve", "counterfactual_review"}


class Shown(NamedTuple):
    """A verdict with its event and what is to be said about it."""

    title: str
    said: str
    event: dict[str, Any]
    verdict: dict[str, Any]


class Kind(NamedTuple):
    """One of the five, and how the first of it is known."""

    title: str
    said: str
    wanted: Callable[[dict[str, Any]], bool]
    without_store: bool = False


def codes(verdict: dict[str, Any]) -> set[str]:
    """Gives the codes of a verdict's reasons."""
    return {reason["code"] for reason in verdict["reasons"]}


def by_model(route: str, code: str) -> Callable[[dict[str, Any]], bool]:
    """Gives what knows a verdict of the model with a reason of this code."""
    return lambda verdict: verdict["verdict"] == route and verdict["decided_by"] == "fast" and code in codes(verdict)


KINDS = (
    Kind("Approved", "Nothing speaks against it; an approved event needs no reasons.", lambda verdict: verdict["verdict"] == "approve"),
    Kind(
        "Blocked by a rule", "The rule with what it compared, and what would have been milder.",
        lambda verdict: verdict["verdict"] == "block" and verdict["decided_by"] == "rule" and bool(OTHERWISE & codes(verdict)),
    ),
    Kind(
        "Blocked by the model", "The three inputs that weigh most, beside what is usual with all and normal here; and what would pass.",
        by_model("block", "counterfactual_approve"),
    ),
    Kind("Held for people", "Between the two cuts: too likely to pass, not likely enough to block.", by_model("review", "model_amount")),
    Kind(
        "Degraded", "The store of what terminals, addresses and devices did does not answer: decided all the same, and it says so.",
        by_model("block", "model_amount"), without_store=True,
    ),
)  # fmt: skip


def decisions(without_store: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gives events with their verdicts, one micro-batch after the other, from the payment on at which windows have filled."""
    serving = load_serving(load_pipeline("payments"), ROOT / "models", KEY, load_model, latest_version)
    state, shared, labels = serving.state.new(), serving.shared.new(), serving.labels.new()
    first = 0
    stream = payments(COUNT, MIX)
    while records := list(islice(stream, BATCH)):
        values = [record.value for record in records if record.value is not None]
        events = [msgspec.json.decode(value) for value in values]
        times = np.array([event["event_time"] for event in events], np.int64)
        keys = [event["customer_id"].encode() for event in events]
        segment = Segment("payments.events.v1", 0, 1, np.arange(first, first + len(values)), times, keys, values, [()] * len(values))
        plan = pipeline.plan([segment], serving)
        asks = serving.shared.asks(plan)
        gone = without_store and first >= WARM
        degraded = (Degraded("redis", "timeout"),) if gone else ()
        read = pipeline.Read(degraded=degraded, shared=SharedRead(asks, shared, missing=gone, degraded=degraded), labels=LabelRead(labels))
        outcome = pipeline.decide(plan, read, [state], serving, int(times[-1]), lambda: 0.0)
        if first >= WARM:
            yield from zip([events[row] for row in plan.index.tolist()], told(outcome, serving), strict=True)
        first += len(values)


def told(outcome: Outcome, serving: pipeline.Serving) -> Iterator[dict[str, Any]]:
    """Gives of each verdict what says why."""
    for line in serving.encoder.verdicts(outcome):
        verdict = msgspec.json.decode(line)
        rounded = {name: round(verdict[name], 6) for name in ("score", "probability", "threshold") if verdict[name] is not None}
        yield {name: verdict[name] for name in TOLD} | rounded | {"models": verdict["versions"]["models"]}


def shown() -> list[Shown]:
    """Gives the five; each is the first of its kind."""
    found: list[Shown] = []
    for kind in KINDS:
        event, verdict = next(pair for pair in decisions(kind.without_store) if kind.wanted(pair[1]))
        found.append(
            Shown(kind.title, kind.said, {name: value for name, value in event.items() if name not in ("label", "scenario")}, verdict)
        )
    return found


def page(five: list[Shown]) -> str:
    """Gives docs/verdicts.md."""
    lines = [
        "# Five verdicts",
        "",
        "Written by `python examples/verdicts.py`; do not edit. Generated payments under the model that comes with the program.",
        "Ids, times, hashes and the place in the source are left out; [verdict.v1.json](../schemas/payments/verdict.v1.json) has all",
        "fields. `streamapp trace --pipeline payments event.json` shows the way of an event of your own.",
    ]
    for one in five:
        lines += ["", f"## {one.title}", "", one.said, "", "```json", dumps(one.event), "```", "", "```json", dumps(one.verdict), "```"]
    return "\n".join(lines) + "\n"


def section(five: list[Shown]) -> str:
    """Gives the README's section: the sentences alone."""
    lines = [BEGIN, ""]
    for one in five:
        probability = "" if one.verdict["probability"] is None else f", probability {one.verdict['probability']:.4f}"
        lines.append(f"- **{one.verdict['verdict']}** (decided by {one.verdict['decided_by']}{probability}): {one.event['amount']} dollars")
        lines += [f"  - `{reason['code']}`: {reason['text']}" for reason in one.verdict["reasons"]]
        lines += [f"  - without `{each['component']}`: {each['cause']}" for each in one.verdict["degraded"]]
    return "\n".join([*lines, "", END])


def dumps(value: Any) -> str:
    """Gives JSON for people: one member a line, but reasons one a line."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
    return re.sub(r"\{\n\s+\"(?:code|component)\".*?\n\s+\}", lambda match: re.sub(r"\n\s*", " ", match[0]), text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Five verdicts as people read them.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the pages are not what the line gives")
    wanted = parser.parse_args()
    five = shown()
    readme = README.read_text(encoding="utf-8")
    begin, end = readme.index(BEGIN), readme.index(END) + len(END)
    pages = {PAGE: page(five), README: readme[:begin] + section(five) + readme[end:]}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if wanted.check:
        for path in stale:
            print(f"{path.name} is not what the line gives now; run python examples/verdicts.py", file=sys.stderr)
        sys.exit(1 if stale else 0)
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        print(f"written {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
