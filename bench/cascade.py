"""What does early exit cost? Fast model alone, heavy model alone and the cascade of both, on ten seeded splits of labelled messages.

    python bench/cascade.py [--data DIRECTORY] [--splits 10] [--first 0] [--json] [--speed]

Each split trains both models, chooses calibration and cuts without its test part, and is judged on that part; figures are means with
95 % t-intervals over the splits (which share rows, so they say how much a figure swings, not how sure it is for other messages).
`--speed` measures what the shipped models cost per row instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.dataset import columns, read_examples
from streamapp.control.evaluate import pr_auc
from streamapp.control.fit import Recipe, Table
from streamapp.control.release import assemble, inputs_of
from streamapp.control.split import random_split
from streamapp.control.stack import FittedStack, StackRecipe, fit_stack
from streamapp.control.thresholds import approve_threshold, block_threshold
from streamapp.control.train import table_of
from streamapp.core.calibrate import probability
from streamapp.core.route import APPROVE, BLOCK, REVIEW, route_by_thresholds
from streamapp.core.vectorise import take

ROOT = Path(__file__).resolve().parents[1]
events_of = runpy.run_path(str(ROOT / "examples/convert_texts.py"))["events"]
SIEVE = "short_and_plain"
T95 = {1: math.inf, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
Flags = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]


class Material:
    """Labelled messages as a table, and which of them the sieve lets pass."""

    def __init__(self, data: Path) -> None:
        self.spec = load_pipeline(str(ROOT / "pipelines/messages_cascade.toml"))
        serving = assemble(self.spec, {}, b"bench")
        with tempfile.TemporaryDirectory() as directory:
            lines = Path(directory) / "sms.jsonl"
            lines.write_text("".join(json.dumps(event) + "\n" for event in events_of("sms_spam", data / "sms_spam/data.jsonl.gz")))
            examples = read_examples([lines], serving, "label", "spam")
        found = columns(examples.events, serving)
        place = {name: at for at, name in enumerate(found.names)}
        hits = serving.rules.evaluate(lambda name: found.values[:, place[name]], len(examples))
        self.sieved = serving.rules.hits_of(SIEVE, hits)
        self.table = table_of(found, self.spec, examples.positive, np.arange(len(examples)))


def judge(material: Material, seed: int) -> Figures:
    """Gives the figures of one split by system."""
    table, recipe = material.table, Recipe(seed=seed, augment=False)
    split = random_split(table.positive, (recipe.train_share, recipe.validation_share), seed)
    own = StackRecipe(approve=0.05, block=0.95)
    buckets = material.spec.ngrams.buckets if material.spec.ngrams else 0
    fitted = fit_stack(table, tuple(material.spec.vector.numeric), split, recipe, own, buckets, lambda stage, share: None)
    test, sieved = table.rows(split.test), material.sieved[split.test]
    fast, heavy = fitted.linear.probability(test), fitted.probability(test)
    everything = np.zeros(len(fast), np.bool_)
    fast_cuts = fitted.linear.approve.value, fitted.linear.block.value
    heavy_cuts = _alone(fitted, table.rows(split.train), table.rows(split.validation), recipe)
    systems = {
        "fast only": (fast, route_by_thresholds(fast, *fast_cuts), everything, everything),
        "heavy only": (heavy, route_by_thresholds(heavy, *heavy_cuts), everything, ~everything),
    }
    for name, passed in (("fast > heavy", everything), ("sieve > fast > heavy", sieved)):
        reached = ~passed & fitted.reaches(fast)
        believed = np.where(passed, 0.0, np.where(reached, heavy, fast))
        last = route_by_thresholds(heavy, fitted.approve.value, fitted.block.value)
        route = np.where(reached, last, route_by_thresholds(fast, *fitted.between))
        systems[name] = (believed, np.where(passed, APPROVE, route), passed, reached)
    return {name: _figures(*parts, test.positive) for name, parts in systems.items()}


def _alone(fitted: FittedStack, train: Table, validation: Table, recipe: Recipe) -> tuple[float | None, float | None]:
    """The cuts of the heavy model for all rows, chosen as those of the fast one are."""
    margins = np.concatenate((fitted.unseen_margins, fitted.margins(validation)))
    believed = probability(margins[:, None], "binary", fitted.calibration)[:, 0]
    truth, least = np.concatenate((train.positive, validation.positive)), recipe.precision - recipe.precision_slack
    block = block_threshold(believed, truth, recipe.precision, recipe.positives_min, least)
    approve = approve_threshold(believed, truth, recipe.miss_rate, recipe.positives_min, 1.0 if block.value is None else block.value)
    return approve.value, block.value


def _figures(believed: Float64, route: npt.NDArray[np.int8], sieved: Flags, heavy: Flags, positive: Flags) -> dict[str, float]:
    blocked = route == BLOCK
    return {
        "pr_auc": pr_auc(believed, positive) or 0.0,
        "block_precision": float(positive[blocked].mean()) if blocked.any() else math.nan,
        "block_recall": float(blocked[positive].mean()),
        "caught": float((route != APPROVE)[positive].mean()),
        "in_review": float((route == REVIEW).mean()),
        "clean_in_review": float((route == REVIEW)[~positive].mean()),
        "by_sieve": float(sieved.mean()),
        "by_fast": float((~sieved & ~heavy).mean()),
        "by_heavy": float(heavy.mean()),
    }


def summary(figures: list[float]) -> dict[str, float]:
    known = [figure for figure in figures if not math.isnan(figure)]
    half = T95.get(len(known), 2.0) * statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return {"mean": statistics.fmean(known) if known else math.nan, "half": half}


def speed() -> Iterator[tuple[str, int, float]]:
    """Gives (model, rows, µs per row): the median of many runs on rows like the card's examples."""
    spec, models = load_pipeline(str(ROOT / "pipelines/messages_cascade.toml")), ROOT / "models"
    serving = assemble(spec, {}, b"bench")
    texts = [
        "see you at the station at seven then, do not forget the book",
        "URGENT! you won a prize, call 09061234567",
    ]
    for name in ("messages", "messages_heavy"):
        model = load_model(models / name / latest_version(models, name), feature_spec=serving.features.hash)
        events = [{"user_id": "u", "text": f"{texts[row % 2]} {row}"} for row in range(512)]
        inputs = inputs_of(serving, model.card, events)
        for rows in (1, 8, 32, 128, 512):
            part, seen = take(inputs, np.arange(rows)), []
            for _ in range(max(20, 2000 // rows)):
                started = time.perf_counter()
                model.logits(part)
                seen.append((time.perf_counter() - started) / rows * 1e6)
            yield name, rows, statistics.median(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STREAMAPP_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--speed", action="store_true")
    chosen = parser.parse_args()
    if chosen.speed:
        for name, rows, cost in speed():
            print(f"{name:16} {rows:4} rows {cost:8.2f} us per row")
        return
    if not (chosen.data / "sms_spam").is_dir():
        sys.exit(f"{chosen.data}/sms_spam is not here; name the directory of the text sets with --data or STREAMAPP_DATA")
    material, seen = Material(chosen.data), list[Figures]()
    for seed in range(chosen.first, chosen.first + chosen.splits):
        seen.append(judge(material, seed))
        print(f"split {seed}", file=sys.stderr)
    if chosen.json:
        print(json.dumps(seen))
        return
    show(seen, len(material.table.positive), int(material.table.positive.sum()))


def show(seen: list[Figures], rows: int, spam: int) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    print(f"commit {commit}, {len(seen)} splits of {rows} messages ({spam} spam); mean ± half of the 95 % interval, in %")
    print(f"{'':16}" + "".join(f"{system:>22}" for system in seen[0]))
    for figure in next(iter(seen[0].values())):
        cells = [summary([one[system][figure] for one in seen]) for system in seen[0]]
        print(f"{figure:16}" + "".join(f"{100 * cell['mean']:13.2f} ± {100 * cell['half']:6.2f}" for cell in cells))


if __name__ == "__main__":
    main()
