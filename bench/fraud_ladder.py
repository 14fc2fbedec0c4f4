"""What windows and labels are worth on the Fraud Detection Handbook's transactions: amount, + customer windows, + terminal risk.

    python bench/fraud_ladder.py [--data DIRECTORY] [--json]

Every transaction of April to July 2018 goes through the line as an event (`bench/handbook.toml`): decoded, windows moved, labels taken in a
week after their transaction. Trees train on 8 May to 14 July, calibrate on 15 to 17 July and are judged on the last fortnight. Windows and
risks are compared with the published ones, cell by cell, where there are any. Then what routing by cost saves, with people for 100 a day.
Exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.control.boost import Boosted, BoostRecipe, boost
from streamapp.control.evaluate import pr_auc
from streamapp.control.history import History, read_history
from streamapp.control.release import assemble
from streamapp.control.split import Split
from streamapp.core.conditions import Columns
from streamapp.core.costs import Costs, CostsSection, Prices
from streamapp.core.spec import PipelineSpec, parse_spec

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "fraud_handbook"
TRANSACTIONS = "transactions_2018-04-01_2018-07-31.csv.gz"
PUBLISHED = ("oracle_windows_2018-04-01_2018-04-14.csv.gz", "oracle_windows_2018-07-01_2018-07-07.csv.gz")
DAY_S = 86_400
#: Days since 1 April: training begins, calibration begins, it ends, the test begins, it ends.
TRAIN, CALIBRATE, CALIBRATED, TEST, END = 37, 105, 108, 108, 122
AMOUNT = ("amount", "hour", "is_night", "is_weekend")
CUSTOMER = tuple(f"customer_{span}_{kind}" for span in ("1d", "7d", "30d") for kind in ("count", "mean_amount"))
TERMINAL = tuple(f"terminal_{span}_{kind}" for span in ("1d", "7d", "30d") for kind in ("count", "risk"))
LADDER: Mapping[str, tuple[str, ...]] = {
    "amount": AMOUNT,
    "+ customer windows": AMOUNT + CUSTOMER,
    "+ terminal risk": AMOUNT + CUSTOMER + TERMINAL,
}
#: Average precision that the whole ladder has to reach, looks a day, and resamples behind an interval.
BAR, LOOKS, RESAMPLES = 0.70, 100, 200

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def rows_of(path: Path) -> Iterator[list[str]]:
    """Gives the rows of a .csv.gz without its head, as texts."""
    with gzip.open(path, "rt") as file:
        next(file)
        for line in file:
            yield line.rstrip("\n").split(",")


def write_events(path: Path, into: Path, since_s: int = 0, until_s: int = END * DAY_S) -> list[int]:
    """Takes the transactions; writes those of [since, until) as events with their labels, one a line; gives their ids in order."""
    found: list[int] = []
    with into.open("w") as out:
        for number, seconds, customer, terminal, amount, fraud, *_ in rows_of(path):
            if since_s <= int(seconds) < until_s:
                label = "fraud" if fraud == "1" else "genuine"
                out.write(
                    f'{{"event_id":"{number}","event_time":{seconds}000,"customer_id":"{customer}","terminal_id":"{terminal}",'
                    f'"amount":{amount},"label":"{label}"}}\n'
                )
                found.append(int(number))
    return found


def spec_of() -> PipelineSpec:
    """Gives the pipeline of the bench."""
    text = (Path(__file__).parent / "handbook.toml").read_text()
    return parse_spec(tomllib.loads(text), "handbook.toml", text)


def history_of(data: Path, until_s: int = END * DAY_S) -> tuple[History, npt.NDArray[np.int64]]:
    """Moves the line through all transactions before `until_s`; gives what it measured, and the id of each row."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "handbook.jsonl"
        ids = write_events(data / FOLDER / TRANSACTIONS, lines, until_s=until_s)
        return read_history([lines], assemble(spec_of(), {}, b"bench"), "label", "fraud"), np.array(ids, np.int64)


def compared(history: History, ids: npt.NDArray[np.int64], files: Sequence[Path]) -> tuple[int, int, float]:
    """Gives how many published cells were compared, how many counts differ, and the largest difference of a mean or risk.

    Customers with two transactions in one second (58 rows of the whole half-year) have no order among them and are left out.
    """
    cells, differ, apart = 0, 0, 0.0
    names = [*CUSTOMER, *TERMINAL]
    for file in files:
        published = np.array([[float(cell) for cell in row[:13]] for row in rows_of(file)])
        row = np.searchsorted(ids, published[:, 0])
        inside = (row < len(ids)) & (ids[np.minimum(row, len(ids) - 1)] == published[:, 0])
        mine, wanted = history.of(names)[row[inside]].astype(np.float64), published[inside, 1:]
        off = mine[:, 0::2] != wanted[:, 0::2]
        unordered = off[:, :3].all(axis=1)
        cells += mine[~unordered].size
        differ += int(off[~unordered].sum())
        apart = max(apart, float(np.abs(mine - wanted)[~unordered][:, 1::2].max()))
    return cells, differ, apart


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: average precision with its 95 % interval, and precision of the 100 most suspicious of a day."""

    name: str
    features: int
    precision: float
    low: float
    high: float
    top_of_a_day: float


def fitted(history: History, names: Sequence[str], recipe: BoostRecipe, days: Float64) -> tuple[Boosted, Float64]:
    """Gives the trees of one rung and what they believe of the test rows."""
    train, calibrate, test = (
        np.flatnonzero((days >= low) & (days < high)) for low, high in ((TRAIN, CALIBRATE), (CALIBRATE, CALIBRATED), (TEST, END))
    )
    values = history.of(names)
    boosted = boost(values, names, history.positive, Split(train, calibrate, test, "time"), recipe)
    return boosted, boosted.probability(values[test])


def interval(believed: Float64, positive: Bools, day: npt.NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Gives the 95 % interval of average precision: whole days drawn again, since frauds of a day hang together."""
    rng, days = np.random.default_rng(seed), np.unique(day)
    rows = {one: np.flatnonzero(day == one) for one in days.tolist()}
    found = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rows[one] for one in rng.choice(days, len(days)).tolist()])
        found.append(pr_auc(believed[chosen], positive[chosen]) or 0.0)
    low, high = np.percentile(found, (2.5, 97.5)).tolist()
    return low, high


def spent(route: npt.NDArray[np.int8], positive: Bools, prices: Prices) -> float:
    """Gives the dollars that routes (0 approve, 1 review, 2 block) cost, knowing what is true; people decide rightly."""
    wrong = np.where(positive, prices.miss, 0.0) * (route == 0) + np.where(positive, 0.0, prices.alarm) * (route == 2)
    return float((wrong + prices.review * (route == 1)).sum())


def routed(believed: Float64, prices: Prices) -> npt.NDArray[np.int8]:
    """Gives the cheapest route of each row."""
    approve, block = prices.cuts()
    return np.where(believed >= block, 2, np.where(believed < approve, 0, 1)).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Policy:
    """What one way of routing costs, in dollars, looks and blocks a day."""

    policy: str
    dollars_a_day: float
    looks_a_day: float
    blocked_a_day: float


def money(believed: Float64, positive: Bools, earlier: Float64) -> list[Policy]:
    """Takes the test rows, and what is believed of `earlier` ones, on which the price of a look is set so that people keep up."""
    section = spec_of().costs or CostsSection()

    def prices(n: int, look: float | None) -> Prices:
        known = msgspec.structs.replace(section, review=section.review if look is not None else None, review_price=look)
        return Costs(known).prices(Columns(lambda name: (), n), [""] * n)

    def looks(price: float) -> int:
        return int((routed(earlier, prices(len(earlier), price)) == 1).sum())

    price = next(one for one in np.arange(0.0, 150.0, 0.05).tolist() if looks(one) <= LOOKS * (CALIBRATED - CALIBRATE))
    n, days = len(believed), END - TEST
    routes = {
        "approve all": np.zeros(n, np.int8),
        "block from 0.5": np.where(believed >= 0.5, 2, 0).astype(np.int8),
        "by cost, nobody looks": routed(believed, prices(n, None)),
        f"by cost, {LOOKS} looks a day": routed(believed, prices(n, price)),
    }
    true = prices(n, 0.0)
    return [
        Policy(name, spent(route, positive, true) / days, float((route == 1).sum()) / days, float((route == 2).sum()) / days)
        for name, route in routes.items()
    ]


def measured(data: Path) -> dict[str, Any]:
    """Gives everything the bench says, JSON-ready."""
    history, ids = history_of(data)
    cells, differ, apart = compared(history, ids, [data / FOLDER / name for name in PUBLISHED])
    days = history.time_ms / (DAY_S * 1000)
    test = (days >= TEST) & (days < END)
    positive, day = history.positive[test], days[test].astype(np.int64)
    rungs: list[Rung] = []
    recipe = BoostRecipe()
    believed = earlier = np.zeros(0)
    for name, features in LADDER.items():
        boosted, believed = fitted(history, features, recipe, days)
        low, high = interval(believed, positive, day, recipe.seed)
        top = np.mean(
            [positive[rows][np.argsort(-believed[rows])[:LOOKS]].mean() for rows in (np.flatnonzero(day == one) for one in np.unique(day))]
        )
        rungs.append(Rung(name, len(features), pr_auc(believed, positive) or 0.0, low, high, float(top)))
        earlier = boosted.probability(history.of(features)[(days >= CALIBRATE) & (days < CALIBRATED)])
    return {
        "rows": len(ids), "test_rows": int(test.sum()), "test_frauds": int(positive.sum()),
        "published_cells": cells, "counts_that_differ": differ, "largest_difference": apart,
        "ladder": [asdict(rung) for rung in rungs],
        "money": [asdict(policy) for policy in money(believed, positive, earlier)],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What windows and labels are worth on the handbook's transactions.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="directory of the data sets")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    wanted = parser.parse_args()
    found = measured(wanted.data)
    if wanted.json:
        print(json.dumps(found))
    else:
        print(f"{found['rows']:,} transactions through the line; test: {found['test_rows']:,}, of which {found['test_frauds']:,} are fraud")
        print(f"published cells compared: {found['published_cells']:,}; counts that differ: {found['counts_that_differ']}; ", end="")
        print(f"largest difference of a mean or risk: {found['largest_difference']:.2g}")
        print(f"\n{'':22} {'features':>8} {'average precision':>18} {'95 % interval':>17} {'of 100 a day':>13}")
        for rung in found["ladder"]:
            print(
                f"{rung['name']:22} {rung['features']:8} {rung['precision']:18.3f} {rung['low']:9.3f} to {rung['high']:.3f} "
                f"{rung['top_of_a_day']:12.1%}"
            )
        print(f"\n{'':26} {'dollars a day':>14} {'looks a day':>12} {'blocked a day':>14}")
        for row in found["money"]:
            print(f"{row['policy']:26} {row['dollars_a_day']:14,.0f} {row['looks_a_day']:12.1f} {row['blocked_a_day']:14.1f}")
    held = found["counts_that_differ"] == 0 and found["largest_difference"] < 1e-4 and found["ladder"][-1]["precision"] >= BAR
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
