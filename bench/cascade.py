"""What does early exit cost? Fast model alone, heavy model alone and cascades of them, on ten seeded splits of labelled messages.

    python bench/cascade.py [--profiles] [--data DIRECTORY] [--splits 0-9] [--kept FILE] [--json] [--speed]

Each split trains all three models, chooses calibration and cuts without its test part, and is judged on that part; figures are means with
95 % t-intervals over the splits (which share rows, so they say how much a figure swings, not how sure it is for other messages).
`--kept` adds each split to a file of JSON lines and takes what is there already from it: ten splits may be run one by one.
`--profiles` makes up what is known of each message's user (`PROFILES`, drawn anew for each split) and gives it to the heavy model alone, as
`streamapp train --profiles` does. The profiles are drawn by the labels, so figures show what a cascade makes of such a signal, not how
good a real one is.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.adapters.models import latest_version, load_model
from streamapp.adapters.profiles_memory import MemoryProfiles
from streamapp.config import load_pipeline
from streamapp.control.dataset import columns, read_examples
from streamapp.control.evaluate import pr_auc
from streamapp.control.fit import Fitted, Recipe, Table, fit, unseen
from streamapp.control.profiles import GivenProfiles
from streamapp.control.release import assemble, inputs_of
from streamapp.control.sieve import SieveRecipe, fit_sieve, sieve_table
from streamapp.control.split import Split, random_split
from streamapp.control.stack import FittedStack, StackRecipe, cascade_cuts, fit_stack
from streamapp.control.thresholds import approve_share, approve_threshold, block_threshold
from streamapp.control.train import table_of
from streamapp.core.calibrate import probability
from streamapp.core.features.profile import AGE, CREATED, DAY_MS, USER_FEATURES
from streamapp.core.profiles import ProfilePlan
from streamapp.core.route import APPROVE, BLOCK, REVIEW, route_by_thresholds
from streamapp.core.vectorise import take

ROOT = Path(__file__).resolve().parents[1]
events_of = runpy.run_path(str(ROOT / "examples/convert_texts.py"))["events"]
Flags = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]
SHARES = 0.6, 0.1
"""Of all messages: what the sieve approves, and what the heavy model is asked about, in the cascade `60/30/10`."""
KNOWN_SHARE, NOW_MS = 0.9, 1_767_225_600_000
"""Of all users, the share that has a profile; and the time that profiles are of."""
DRAWS: dict[str, Callable[..., Float64]] = {
    "log-normal (median, sigma)": lambda chance, n, median, sigma: chance.lognormal(math.log(median), sigma, n),
    "yes (share)": lambda chance, n, share: (chance.random(n) < share).astype(np.float64),
    "Poisson (mean)": lambda chance, n, mean: chance.poisson(mean, n).astype(np.float64),
    "beta": lambda chance, n, a, b: chance.beta(a, b, n),
}
PROFILES: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "account_age_days": ("log-normal (median, sigma)", (400, 1.2), (120, 1.4)),
    "is_verified": ("yes (share)", (0.20,), (0.10,)),
    "follower_count": ("log-normal (median, sigma)", (120, 1.5), (60, 1.7)),
    "messages_sent_7d": ("log-normal (median, sigma)", (15, 1.0), (30, 1.3)),
    "spam_reports_received": ("Poisson (mean)", (0.15,), (0.8,)),
    "avg_message_length": ("log-normal (median, sigma)", (70, 0.5), (90, 0.5)),
    "reply_rate": ("beta", (4, 4), (3, 5)),
    "block_rate": ("beta", (1, 30), (1.3, 15)),
}
"""How each profile feature is drawn: the kind, its parameters for users of clean messages, and for users of spam."""
T95 = {1: math.inf, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


class Material:
    """Labelled messages as the tables of the models: all of them, and what the sieve sees."""

    def __init__(self, data: Path) -> None:
        self.spec = load_pipeline(str(ROOT / "pipelines/messages_cascade.toml"))
        self.serving = serving = assemble(self.spec, {}, b"bench")
        with tempfile.TemporaryDirectory() as directory:
            lines = Path(directory) / "sms.jsonl"
            lines.write_text("".join(json.dumps(event) + "\n" for event in events_of("sms_spam", data / "sms_spam/data.jsonl.gz")))
            examples = read_examples([lines], serving, "label", "spam")
        self.events, found = examples.events, columns(examples.events, serving)
        self.table = table_of(found, self.spec, examples.positive, np.arange(len(examples)))
        self.counted = sieve_table(found, examples.positive)
        self.buckets = self.spec.ngrams.buckets if self.spec.ngrams else 0
        self.of_text = tuple(name for name in self.spec.vector.numeric if name not in USER_FEATURES)
        self.plain = replace(self.table, values=found.of(self.of_text))

    def profiled(self, seed: int) -> tuple[Table, Table]:
        """Gives what the heavy model sees with profiles drawn by `seed`, and the profiles alone."""
        positive = self.table.positive
        found = columns(self.events, self.serving, made_up([event["user_id"] for event in self.events], positive, seed))
        alone = Table(found.of(USER_FEATURES), None, positive, self.table.origin)
        return replace(self.table, values=found.of((*self.of_text, *USER_FEATURES))), alone


def made_up(users: list[str], positive: Flags, seed: int) -> GivenProfiles:
    """Gives a profile for most users, drawn by the label of their message (`PROFILES`)."""
    plan, n = ProfilePlan.of(USER_FEATURES), len(users)
    (part,), chance = plan.parts, np.random.default_rng(seed)
    values = np.empty((n, len(part.columns)))
    for name, (kind, clean, spam) in PROFILES.items():
        drawn = np.where(positive, DRAWS[kind](chance, n, *spam), DRAWS[kind](chance, n, *clean))
        place = part.columns.index(CREATED if name == AGE else name)
        values[:, place] = NOW_MS - np.floor(drawn) * DAY_MS if name == AGE else drawn
    known, store = np.flatnonzero(chance.random(n) < KNOWN_SHARE), MemoryProfiles(plan)
    store.put(part, [users[row] for row in known], values[known], np.full(len(known), NOW_MS))
    return GivenProfiles(store.known, NOW_MS, {})


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
    fitted = fit_stack(table, tuple(material.spec.vector.numeric), split, recipe, own, material.buckets, _silent)
    sieve = fit_sieve(material.counted, split, recipe, SieveRecipe(), _silent)
    known, judged = _beliefs((sieve, material.counted), (fitted.linear, table), (fitted, table), split)
    found = _each_alone(known, judged, fitted.linear, recipe)
    heavy_cuts = fitted.approve.value, fitted.block.value
    passed = 1.0 if sieve.approve.value is None else sieve.approve.value
    cascades = {
        "fast > heavy": Cuts(0.0, fitted.between, heavy_cuts),
        "shipped": Cuts(passed, fitted.between, heavy_cuts),
        "60/30/10": _cuts_for(known, len(split.validation), recipe, *SHARES),
    }
    return found | {name: _cascade(judged, cuts) for name, cuts in cascades.items()}


def judge_with_profiles(material: Material, seed: int) -> Figures:
    """Gives the figures of one split where the heavy model alone knows profiles, by system."""
    recipe = Recipe(seed=seed, augment=False)
    split = random_split(material.table.positive, (recipe.train_share, recipe.validation_share), seed)
    profiled, profile = material.profiled(seed)
    own = StackRecipe(approve=0.05, block=0.95)
    alone = fit(profile, USER_FEATURES, split, recipe, 0, None, _silent)
    fast = fit(material.plain, material.of_text, split, recipe, material.buckets, None, _silent)
    heavy = fit_stack(profiled, (*material.of_text, *USER_FEATURES), split, recipe, own, material.buckets, _silent)
    sieve = fit_sieve(material.counted, split, recipe, SieveRecipe(), _silent)
    known, judged = _beliefs((sieve, material.counted), (fast, material.plain), (heavy, profiled), split)
    of_profile, nothing = alone.probability(profile.rows(split.test)), np.zeros(len(split.test), np.bool_)
    route = route_by_thresholds(of_profile, alone.approve.value, alone.block.value)
    found = {"profile only": _figures(of_profile, route, nothing, nothing, judged.positive)} | _each_alone(known, judged, fast, recipe)
    block, approve = cascade_cuts(known.fast, known.heavy, known.positive, heavy.between, recipe, own.positives_min)
    shipped = Cuts(0.0 if sieve.approve.value is None else sieve.approve.value, heavy.between, (approve.value, block.value))
    cascades = {
        "fast > heavy": replace(shipped, sieve=0.0),
        "as shipped": shipped,
        "60/30/10": _cuts_for(known, len(split.validation), recipe, *SHARES),
    }
    return found | {name: _cascade(judged, cuts) for name, cuts in cascades.items()}


def _silent(stage: str, share: float) -> None:
    """Progress of a benchmark."""


def _each_alone(known: Beliefs, judged: Beliefs, fast: Fitted, recipe: Recipe) -> Figures:
    nothing = np.zeros(len(judged.positive), np.bool_)
    fast_route = route_by_thresholds(judged.fast, fast.approve.value, fast.block.value)
    heavy_route = route_by_thresholds(judged.heavy, *_alone(known, recipe))
    return {
        "fast only": _figures(judged.fast, fast_route, nothing, nothing, judged.positive),
        "heavy only": _figures(judged.heavy, heavy_route, nothing, ~nothing, judged.positive),
    }


def _beliefs(
    sieve: tuple[Fitted, Table], fast: tuple[Fitted, Table], heavy: tuple[FittedStack, Table], split: Split
) -> tuple[Beliefs, Beliefs]:
    """What the models believe of their tables: of rows that they were not fitted on, for cuts to be chosen on, and of the test part."""

    def unfitted(model: Fitted | FittedStack, table: Table) -> Float64:
        margins = unseen(split, model.unseen_margins, model.margins(table.rows(split.validation)))
        return probability(margins[:, None], "binary", model.calibration)[:, 0]

    models, positive = (sieve, fast, heavy), heavy[1].positive
    known = [unfitted(*one) for one in models]
    judged = [model.probability(table.rows(split.test)) for model, table in models]
    return Beliefs(*known, unseen(split, positive[split.train], positive[split.validation])), Beliefs(*judged, positive[split.test])


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
        "recall_at_p95": recall_at(believed, positive, 0.95),
        "block_precision": float(positive[blocked].mean()) if blocked.any() else math.nan,
        "block_recall": float(blocked[positive].mean()),
        "caught": float((route != APPROVE)[positive].mean()),
        "in_review": float((route == REVIEW).mean()),
        "clean_in_review": float((route == REVIEW)[~positive].mean()),
        "by_sieve": float(sieved.mean()),
        "by_fast": float((~sieved & ~heavy).mean()),
        "by_heavy": float(heavy.mean()),
    }


def recall_at(believed: Float64, positive: Flags, precision: float) -> float:
    """Gives the most that any cut finds of the positives with this precision, for systems to be compared at; no cut chosen beforehand."""
    order = np.argsort(-believed, kind="stable")
    found, last = np.cumsum(positive[order]), np.append(np.diff(believed[order]) != 0, True)
    kept = last & (found >= precision * np.arange(1, len(found) + 1))
    return float(found[kept].max(initial=0)) / max(1, int(positive.sum()))


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
    parser.add_argument("--profiles", action="store_true")
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
            seen[seed] = (judge_with_profiles if chosen.profiles else judge)(material, seed)
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
    if chosen.profiles:
        tell_profiles()
    show(wanted, len(material.table.positive), int(material.table.positive.sum()))


def tell_profiles() -> None:
    print(f"profiles of {KNOWN_SHARE:.0%} of the users, one draw for each split; of users of clean messages | of spam:")
    for name, (kind, clean, spam) in PROFILES.items():
        print(f"  {name:22} {kind}: {', '.join(map(str, clean))} | {', '.join(map(str, spam))}")


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
