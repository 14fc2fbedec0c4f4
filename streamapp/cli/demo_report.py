"""How the demo ends: the figures, what became of the broken events, drift before and after, and some verdicts in words."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamapp.cli.demo_run import Run, Sample, percentiles
from streamapp.cli.demo_view import drift_rows
from streamapp.cli.say import MARKS, ROUTE_COLOURS, table
from streamapp.cli.words import reason_words, surety, visible
from streamapp.control.ledger import Quality

#: What is shown of each kind at the end.
_SHOWN = {"block": 3, "review": 1, "approve": 1, "dead_letter": 1}
_WIDTH_MAX = 118


def figures(run: Run) -> dict[str, Any]:
    """Gives all figures of a run as one JSON-ready object."""
    before, after = run.ledger.quality(drifted=False), run.ledger.quality(drifted=True)
    latencies = [latency for timing in run.timings for latency in timing.latency_ms]
    p50, p99 = percentiles(latencies)
    return {
        **run.ledger.figures(),
        "seconds": round(sum(timing.ended - timing.started for timing in run.timings), 3),
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "waiting_max": run.peak_waiting,
        "phases": [timing.figures() for timing in run.timings],
        "quality": _quality_figures(run.ledger.quality()),
        "quality_before_drift": _quality_figures(before) if after is not None else None,
        "quality_after_drift": _quality_figures(after),
        "labels": None if run.labels is None else _label_figures(run),
        "drift": [_drift_figures(report) for report in run.reports],
    }


def _label_figures(run: Run) -> dict[str, int]:
    labels = run.labels
    if labels is None:
        return {}
    return {"sent": labels.sent, "broken_on_purpose": labels.broken, "dead_letters": run.label_letters}


def _drift_figures(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n": report["window"]["n"],
        "alarm": report["alarm"],
        "psi": {name: round(psi, 4) for name, psi, _, _ in drift_rows(report, 99)},
        "moved": [name for name, _, _, drifted in drift_rows(report, 99) if drifted],
    }


def _quality_figures(quality: Quality | None) -> dict[str, Any] | None:
    if quality is None:
        return None
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in dataclasses.asdict(quality).items()}


def report(found: Mapping[str, Any], run: Run, *, as_json: bool) -> None:
    """Writes the end of the demo on stdout: one JSON object, or tables and sentences."""
    console = Console(highlight=False)
    if as_json:
        console.file.write(orjson.dumps(found).decode() + "\n")
        return
    width = min(console.width, _WIDTH_MAX)
    console.print()
    console.print(_flow(found))
    console.print(_outcome(found))
    if found["quality"] is not None:
        console.print(_quality(found, run.good, run.bad))
    if found["labels"] is not None:
        told = found["labels"]
        words = f"{told['sent']:,} labels were told on the way; {told['broken_on_purpose']:,} of them were none on purpose, "
        console.print(Text(f"{words}{told['dead_letters']:,} are answered with a dead letter", style="dim"))
    if found["drift"]:
        console.print(_drift(run))
    console.print(Text("Some of them in words", style="bold"))
    for sample in _chosen(run):
        console.print(_in_words(sample, width))
    console.print(_account(found))


def _flow(found: Mapping[str, Any]) -> Table:
    shown = table(
        "Flow", ["part", "events", "seconds", "events/s", "p50 ms", "p99 ms"], ["events", "seconds", "events/s", "p50 ms", "p99 ms"]
    )
    for phase in found["phases"]:
        latency = [f"{phase[name]:,.1f}" if phase[name] is not None else "–" for name in ("latency_p50_ms", "latency_p99_ms")]
        shown.add_row(phase["phase"], f"{phase['events']:,}", f"{phase['seconds']:.1f}", f"{phase['events_per_s']:,}", *latency)
    return shown


def _outcome(found: Mapping[str, Any]) -> Table:
    shown = table("Answers", ["answer", "events", "share", ""], ["events", "share"])
    total = max(1, found["events"])
    for name, count in found["routes"].items():
        shown.add_row(Text(name, style=ROUTE_COLOURS[name]), f"{count:,}", f"{count / total:.1%}", "")
    for reason, count in found["dead_letters_by_reason"].items():
        due = found["broken_on_purpose"].get(reason)
        mark = "" if due is None else f"{due:,} were broken this way on purpose"
        shown.add_row(
            Text(f"dead letter · {reason}", style=ROUTE_COLOURS["dead_letter"]),
            f"{count:,}",
            f"{count / total:.1%}",
            Text(mark, style="dim"),
        )
    return shown


def _quality(found: Mapping[str, Any], good: str, bad: str) -> Table:
    """Precision and recall; before and after the drift where there was one, since that is what it does to a model."""
    parts = {"": found["quality"]}
    if found["quality_before_drift"] is not None:
        parts = {"before the drift": found["quality_before_drift"], "after it": found["quality_after_drift"]}
    whole = found["quality"]
    shown = table(f"Against the labels of {whole['labelled']:,} events ({whole['bad']:,} {bad})", ["", *parts], [*parts])
    for name, words in _QUALITY.items():
        shown.add_row(words.format(good=good, bad=bad), *("–" if part[name] is None else f"{part[name]:.1%}" for part in parts.values()))
    return shown


_QUALITY = {
    "precision_block": "of what is blocked, is {bad} (precision)",
    "recall_block": "of the {bad}, is blocked (recall)",
    "recall_block_or_review": "of the {bad}, is blocked or reviewed",
    "good_in_review": "of the {good}, people have to look at",
}


def _drift(run: Run) -> Table:
    first, last = run.reports[0], run.reports[-1]
    shown = table(
        "Drift against the training data (PSI), first and last window",
        ["feature", "first", "last", "limit", ""],
        ["first", "last", "limit"],
    )
    before = {name: psi for name, psi, _, _ in drift_rows(first, 99)}
    for name, psi, limit, drifted in drift_rows(last, 6):
        state = Text("moved: " + ", ".join(drifted), style="red") if drifted else Text("steady", style="green")
        shown.add_row(name, f"{before.get(name, 0.0):.2f}", f"{psi:.2f}", f"{limit:.2f}", state)
    return shown


def _chosen(run: Run) -> list[Sample]:
    """Gives a few samples of each kind, at most one mistake among them; those that hide what they say come first."""
    chosen: list[Sample] = []
    for kind, count in _SHOWN.items():
        mine = [sample for sample in run.samples if sample.kind == kind]
        mistakes = [sample for sample in mine if sample.mistake]
        mine = sorted((sample for sample in mine if not sample.mistake), key=lambda sample: sample.text.isascii())
        different: dict[str, Sample] = {}
        for sample in [*mine[:1], *reversed(mine[1:])]:
            different.setdefault(sample.text[:12], sample)
        chosen += (list(different.values())[: count - bool(mistakes and count > 1)] + mistakes[-1:])[:count]
    return chosen


def _in_words(sample: Sample, width: int) -> Text:
    answer = sample.answer
    colour = ROUTE_COLOURS[sample.kind]
    words = Text(f"  {'dead letter' if sample.kind == 'dead_letter' else sample.kind:12}", style=f"bold {colour}")
    words.append(f"“{visible(sample.text, width - 18)}”\n", style="italic")
    if sample.kind == "dead_letter":
        because = f"{answer.get('dlq.reason')} at {answer.get('dlq.path')}: {answer.get('__streams.errors.message')}"
    else:
        because = surety(answer) + (f"; {reason_words(answer)}" if answer.get("reasons") else "")
    if sample.mistake:
        words.append(f"{'':14}a mistake: its label says otherwise\n", style="red")
    for line in textwrap.wrap(because, max(40, width - 16)):
        words.append(f"{'':14}{line}\n", style="dim")
    return words


def _account(found: Mapping[str, Any]) -> Text:
    colour, mark = MARKS["ok" if found["accounted"] else "fail"]
    words = f"{mark} {found['events']:,} events = {found['verdicts']:,} verdicts + {found['dead_letters']:,} dead letters"
    if not found["accounted"]:
        words = words.replace("=", "≠")
    if found["repeated"]:
        words += f"; {found['repeated']:,} were answered more than once"
    return Text(words, style=f"bold {colour}")
