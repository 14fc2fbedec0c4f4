"""How good is the `messages` model? Ten seeded splits of labelled messages, duplicates removed; attacked texts are judged apart.

    python bench/quality.py [--data DIRECTORY] [--splits 10] [--json]

Each split trains, chooses calibration and cuts without its test part, and is judged on that part. Attacked texts count in a split
only when their original (or a text that is the same once cleaned and folded) is in its test part. Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.control.dataset import columns, plan_of, read_examples, text_keys
from streamapp.control.evaluate import quality
from streamapp.control.fit import Fitted, Recipe, Table, fit
from streamapp.control.release import assemble
from streamapp.control.split import random_split
from streamapp.control.train import table_of
from streamapp.core.spec import parse_spec

ROOT = Path(__file__).resolve().parents[1]
events_of = runpy.run_path(str(ROOT / "examples/convert_texts.py"))["events"]

#: (figure, at least or at most, bar): the mean over the splits is held against it.
BARS = (
    ("pr_auc", ">=", 0.98),
    ("block_precision", ">=", 0.93),
    ("caught_recall", ">=", 0.93),
    ("clean_in_review", "<=", 0.05),
    ("attacked_caught_recall", ">=", 0.88),
)


class Material:
    """Labelled messages and attacked ones as tables; `original` names the message an attacked one was made from."""

    def __init__(self, data: Path) -> None:
        spec = parse_spec(tomllib.loads((ROOT / "pipelines/messages.toml").read_text()), "messages.toml")
        serving = assemble(spec, {}, b"bench")
        with tempfile.TemporaryDirectory() as directory:
            lines = Path(directory) / "sms.jsonl"
            everything = list(events_of("sms_spam", data / "sms_spam/data.jsonl.gz"))
            lines.write_text("".join(json.dumps(event) + "\n" for event in everything))
            examples = read_examples([lines], serving, "label", "spam")
        attacked = list(events_of("adversarial", data / "adversarial/data.jsonl.gz"))
        self.spec, self.buckets = spec, spec.ngrams.buckets if spec.ngrams else 0
        self.table = table_of(columns(examples.events, serving), spec, examples.positive, np.arange(len(examples)))
        row_of = {key: row for row, key in enumerate(text_keys(plan_of(examples.events, serving), serving))}
        plan = plan_of(everything, serving)
        row_of_id = {plan.event_id[i]: row_of.get(key, -1) for i, key in enumerate(text_keys(plan, serving))}
        original = np.array([row_of_id.get(event["orig_id"], -1) for event in attacked])
        labels = np.array([event["label"] == "spam" for event in attacked])
        self.attacked = table_of(columns(attacked, serving), spec, labels, original)
        self.attack = np.array([event["attack"] for event in attacked])


def judge(material: Material, recipe: Recipe) -> Iterator[tuple[str, float]]:
    """Gives the figures of one split by name."""
    table = material.table
    split = random_split(table.positive, (recipe.train_share, recipe.validation_share), recipe.seed)
    fitted = fit(table, tuple(material.spec.vector.numeric), split, recipe, material.buckets, None, lambda stage, share: None)
    figures = of(fitted, table.rows(split.test))
    unseen = np.flatnonzero(np.isin(material.attacked.origin, split.test))
    attacked = of(fitted, material.attacked.rows(unseen))
    for name in ("pr_auc", "roc_auc", "block_precision", "block_recall", "caught_recall", "log_loss", "brier", "ece"):
        yield name, figures[name]
    yield "clean_in_review", figures["negatives_in_review"]
    yield "clean_blocked", figures["negatives_blocked"]
    yield "attacked_caught_recall", attacked["caught_recall"]
    yield "attacked_clean_blocked", attacked["negatives_blocked"]
    for kind in sorted(set(material.attack)):
        rows = unseen[(material.attack[unseen] == kind) & material.attacked.positive[unseen]]
        yield f"attacked_caught_recall_{kind}", of(fitted, material.attacked.rows(rows))["caught_recall"]


def of(fitted: Fitted, part: Table) -> dict[str, Any]:
    return quality(fitted.probability(part), part.positive, fitted.approve.value, fitted.block.value).as_dict()


def summary(figures: Sequence[float]) -> dict[str, float]:
    spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
    return {"mean": statistics.fmean(figures), "stdev": spread, "min": min(figures), "max": max(figures)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STREAMAPP_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if not (chosen.data / "sms_spam").is_dir():
        sys.exit(f"{chosen.data}/sms_spam is not here; name the directory of the text sets with --data or STREAMAPP_DATA")
    material = Material(chosen.data)
    seen: dict[str, list[float]] = {}
    for seed in range(chosen.splits):
        for name, figure in judge(material, replace(Recipe(), seed=seed)):
            seen.setdefault(name, []).append(figure)
    found = {name: summary(figures) for name, figures in seen.items()}
    missed = [name for name, sign, bar in BARS if not (found[name]["mean"] >= bar if sign == ">=" else found[name]["mean"] <= bar)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    rows = {"messages": len(material.table.positive), "spam": int(material.table.positive.sum()), "attacked": len(material.attack)}
    if chosen.json:
        print(json.dumps({"commit": commit, "splits": chosen.splits, "rows": rows, "figures": found, "missed": missed}))
    else:
        print(f"commit {commit}, {chosen.splits} splits of {rows['messages']} messages ({rows['spam']} spam), {rows['attacked']} attacked")
        bars = {name: f"{sign} {bar}" for name, sign, bar in BARS}
        print(f"{'figure':36} {'mean':>8} {'stdev':>8} {'min':>8} {'max':>8}  bar")
        for name, figure in found.items():
            verdict = f"{bars[name]} {'MISSED' if name in missed else 'held'}" if name in bars else ""
            print(f"{name:36} {figure['mean']:8.4f} {figure['stdev']:8.4f} {figure['min']:8.4f} {figure['max']:8.4f}  {verdict}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
