"""What does early exit cost? Fast model alone, heavy model alone and cascades of them, on ten seeded splits of labelled messages.

    python bench/cascade.py [--data DIRECTORY] [--splits 0-9] [--kept FILE] [--json] [--speed]

Each split trains all three models, chooses calibration and cuts without its test part, and is judged on that part; figures are means with
95 % t-intervals over the splits (which share rows, so they say how much a figure swings, not how sure it is for other messages).
`--kept` adds each split to a file of JSON lines and takes what is there already from it: ten splits may be run one by one.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.adapters.models import latest_version, load_model
from streamapp.config import load_pipeline
from streamapp.control.dataset import columns, read_examples
from streamapp.control.evaluate import pr_auc
from streamapp.control.fit import Fitted, Recipe, unseen
from streamapp.control.release import assemble, inputs_of
from streamapp.control.sieve import SieveRecipe, fit_sieve, sieve_table
from streamapp.control.split import Split, random_split
from streamapp.control.stack import FittedStack, StackRecipe, cascade_cuts, fit_stack
from streamapp.control.thresholds import approve_share, approve_threshold, block_threshold
from streamapp.control.train import table_of
from streamapp.core.calibrate import probability
from streamapp.core.card import Calibration
from streamapp.core.route import APPROVE, BLOCK, REVIEW, route_by_thresholds
from streamapp.core.vectorise import take

ROOT = Path(__file__).resolve().parents[1]
events_of = runpy.run_path(str(ROOT / "examples/convert_texts.py"))["events"]
SHARES = 0.6, 0.1
"""Of all messages: what the sieve approves, and what the heavy model is asked about, in the cascade `60/30/10`."""
T95 = {1: math.inf, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
Flags = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]


class Material:
    """Labelled messages as the tables of the models: all of them, and what the sieve sees."""

    def __init__(self, data: Path) -> None:
        self.spec = load_pipeline(str(ROOT / "pipelines/messages_cascade.toml"))
        serving = assemble(self.spec, {}, b"bench")
        with tempfile.TemporaryDirectory() as directory:
            lines = Path(directory) / "sms.jsonl"
            lines.write_text("".join(json.dumps(event) + "\n" for event in events_of("sms_spam", data / "sms_spam/data.jsonl.gz")))
            examples = read_examples([lines], serving, "label", "spam")
        found = columns(examples.events, serving)
        self.table = table_of(found, self.spec, examples.positive, np.arange(len(examples)))
        self.counted = sieve_table(found, examples.positive)


@dataclass(slots=True, frozen=True)
class Beliefs:
    """What the three models believe of the same rows [n], and what is true."""

    sieve: Float64
    fast: Float64
    heavy: Float64
    positive: Flags


@dataclass(slots=True, frozen=True)
class Cuts:
    """Where the tiers of a cascade decide; None: the tier does not decide so."""

    sieve: float
    fast: tuple[float, float]
    heavy: tuple[float | None, float | None]


def judge(material: Material, seed: int) -> Figures:
    """Gives the figures of one split by system."""
    table, recipe = material.table, Recipe(seed=seed, augment=False)
    split = random_split(table.positive, (recipe.train_share, recipe.validation_share), seed)
    own = StackRecipe(approve=0.05, block=0.95)
    buckets = material.spec.ngrams.buckets if material.spec.ngrams else 0
    fitted = fit_stack(table, tuple(material.spec.vector.numeric), split, recipe, own, buckets, lambda stage, share: None)
    sieve = fit_sieve(material.counted, split, recipe, SieveRecipe(), lambda stage, share: None)
    known, test = _unseen(material, sieve, fitted, split), table.rows(split.test)
    judged = Beliefs(
        sieve.probability(material.counted.rows(split.test)), fitted.linear.probability(test), fitted.probability(test), test.positive
    )
    nothing = np.zeros(len(judged.positive), np.bool_)
    fast_cuts = fitted.linear.approve.value, fitted.linear.block.value
    fast_route = route_by_thresholds(judged.fast, *fast_cuts)
    heavy_route = route_by_thresholds(judged.heavy, *_alone(known, recipe))
    found = {
        "fast only": _figures(judged.fast, fast_route, nothing, nothing, judged.positive),
        "heavy only": _figures(judged.heavy, heavy_route, nothing, ~nothing, judged.positive),
    }
    heavy_cuts = fitted.approve.value, fitted.block.value
    passed = 1.0 if sieve.approve.value is None else sieve.approve.value
    cascades = {
        "fast > heavy": Cuts(0.0, fitted.between, heavy_cuts),
        "shipped": Cuts(passed, fitted.between, heavy_cuts),
        "60/30/10": _cuts_for(known, len(split.validation), recipe, *SHARES),
    }
    return found | {name: _cascade(judged, cuts) for name, cuts in cascades.items()}


def _unseen(material: Material, sieve: Fitted, fitted: FittedStack, split: Split) -> Beliefs:
    """What the models believe of rows that they were not fitted on: what cuts are chosen on."""

    def believed(folded: Float64, margins: Float64, calibration: Calibration) -> Float64:
        return probability(unseen(split, folded, margins)[:, None], "binary", calibration)[:, 0]

    table, validation = material.table, material.table.rows(split.validation)
    return Beliefs(
        believed(sieve.unseen_margins, sieve.margins(material.counted.rows(split.validation)), sieve.calibration),
        believed(fitted.linear.unseen_margins, fitted.linear.margins(validation), fitted.linear.calibration),
        believed(fitted.unseen_margins, fitted.margins(validation), fitted.calibration),
        unseen(split, table.positive[split.train], validation.positive),
    )


def _cuts_for(known: Beliefs, validation: int, recipe: Recipe, approved: float, asked: float) -> Cuts:
    """Cuts so that the sieve approves the share `approved` of all and the heavy model is asked about the share `asked`.

    It is asked about what the fast model is least sure of among the rest: what lies nearest to one half. How many these are is counted on
    the last `validation` rows, which the model that serves has scored; those of the folds are less sure.
    """
    passed = approve_share(known.sieve, known.positive, approved, recipe.positives_min).value or 0.0
    left = known.sieve >= passed
    unsure = np.sort(np.abs(known.fast[-validation:][left[-validation:]] - 0.5))
    half = float(unsure[min(len(unsure) - 1, round(asked * validation))])
    between, least = (0.5 - half, 0.5 + half), StackRecipe().positives_min
    block, approve = cascade_cuts(known.fast[left], known.heavy[left], known.positive[left], between, recipe, least)
    return Cuts(passed, between, (approve.value, block.value))


def _cascade(judged: Beliefs, cuts: Cuts) -> dict[str, float]:
    sieved = judged.sieve < cuts.sieve
    reached = ~sieved & (judged.fast >= cuts.fast[0]) & (judged.fast < cuts.fast[1])
    believed = np.where(sieved, judged.sieve, np.where(reached, judged.heavy, judged.fast))
    route = np.where(reached, route_by_thresholds(judged.heavy, *cuts.heavy), route_by_thresholds(judged.fast, *cuts.fast))
    return _figures(believed, np.where(sieved, APPROVE, route), sieved, reached, judged.positive)


def _alone(known: Beliefs, recipe: Recipe) -> tuple[float | None, float | None]:
    """The cuts of the heavy model for all rows, chosen as those of the fast one are."""
    least = recipe.precision - recipe.precision_slack
    block = block_threshold(known.heavy, known.positive, recipe.precision, recipe.positives_min, least)
    ceiling = 1.0 if block.value is None else block.value
    return approve_threshold(known.heavy, known.positive, recipe.miss_rate, recipe.positives_min, ceiling).value, block.value


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
    for name in ("messages_sieve", "messages", "messages_heavy"):
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
    parser.add_argument("--splits", type=seeds, default=seeds("0-9"), help='seeds, such as "2,6,7" or "0-9"')
    parser.add_argument("--kept", type=Path, help="a file of JSON lines that finished splits are kept in")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--speed", action="store_true")
    chosen = parser.parse_args()
    if chosen.speed:
        for name, rows, cost in speed():
            print(f"{name:16} {rows:4} rows {cost:8.2f} us per row")
        return
    if not (chosen.data / "sms_spam").is_dir():
        sys.exit(f"{chosen.data}/sms_spam is not here; name the directory of the text sets with --data or STREAMAPP_DATA")
    kept = [json.loads(line) for line in chosen.kept.read_text().splitlines()] if chosen.kept and chosen.kept.exists() else []
    seen: dict[int, Figures] = {one["split"]: one["figures"] for one in kept}
    material = Material(chosen.data)
    for seed in chosen.splits:
        if seed not in seen:
            seen[seed] = judge(material, seed)
            print(f"split {seed}", file=sys.stderr)
            if chosen.kept:
                with chosen.kept.open("a") as lines:
                    lines.write(json.dumps({"split": seed, "figures": seen[seed]}) + "\n")
    wanted = [seen[seed] for seed in chosen.splits]
    if chosen.json:
        print(
            json.dumps({name: {figure: summary([one[name][figure] for one in wanted]) for figure in wanted[0][name]} for name in wanted[0]})
        )
        return
    show(wanted, len(material.table.positive), int(material.table.positive.sum()))


def seeds(said: str) -> list[int]:
    """Takes "0-9" or "2,6,7"; gives the numbers."""
    found: list[int] = []
    for part in said.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def show(seen: list[Figures], rows: int, spam: int) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    print(f"commit {commit}, {len(seen)} splits of {rows} messages ({spam} spam); mean ± half of the 95 % interval, in %")
    print(f"{'':16}" + "".join(f"{system:>22}" for system in seen[0]))
    for figure in next(iter(seen[0].values())):
        cells = [summary([one[system][figure] for one in seen]) for system in seen[0]]
        print(f"{figure:16}" + "".join(f"{100 * cell['mean']:13.2f} ± {100 * cell['half']:6.2f}" for cell in cells))


if __name__ == "__main__":
    main()
