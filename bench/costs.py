"""What routing by cost saves against a fixed cut of 0.5, in dollars, with people for 100 looks a day.

    python bench/costs.py [--data DIRECTORY] [--looks 100] [--json]

The trees are those of `bench/fraud_ladder.py` with all features: trained on 8 May to 14 July of the Fraud Detection Handbook, calibrated on
15 to 17 July, judged on the last fortnight. Prices of looks are set on the three days of calibration. A look beyond the day's capacity is
not made: such a payment takes the cheaper of approve and block. Exits 1 when routing by cost does not save money.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fraud_ladder
import numpy as np
import numpy.typing as npt

from streamapp.control.boost import BoostRecipe
from streamapp.control.costs import review_price, routed, spent, within_capacity
from streamapp.core.conditions import Columns
from streamapp.core.costs import Costs, CostsSection, Prices
from streamapp.core.route import BLOCK, REVIEW

Float64 = npt.NDArray[np.float64]
RESAMPLES = 1000

#: What is lost, by name: as the specification says it, and as it is where the amount is what is lost.
TABLES = {
    "miss $150, false alarm $5, look $3": {"miss": 150.0, "false_alarm": 5.0, "review": 3.0},
    "miss = amount + $20, false alarm $5 + 2 %, look $1": {
        "miss": 20.0, "miss_share": 1.0, "false_alarm": 5.0, "false_alarm_share": 0.02, "review": 1.0, "amount": "amount",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Policy:
    """What one way of routing costs a day, how much less than the fixed cut with its 95 % interval over days, and what it does."""

    policy: str
    dollars_a_day: float
    saved_a_day: float
    saved_low: float
    saved_high: float
    looks_a_day: float
    blocked_a_day: float
    missed_a_day: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of some days: what is believed, what is true, the amount, and the day."""

    believed: Float64
    positive: npt.NDArray[np.bool_]
    amount: Float64
    day: npt.NDArray[np.int64]

    def prices(self, table: dict[str, Any], price: float | None = 0.0) -> Prices:
        """Gives each row's prices; `price` None: nobody looks."""
        known = {**table, "review": None if price is None else table["review"], "review_price": price}
        return Costs(CostsSection(**known)).prices(Columns(lambda name: self.amount, len(self.amount)), [""] * len(self.amount))


def policies(test: Rows, earlier: Rows, table: dict[str, Any], looks: int) -> list[Policy]:
    """Gives the ways of routing for one table of costs; prices of looks come from the earlier rows."""
    n, true = len(test.believed), test.prices(table)
    price = review_price(earlier.believed, earlier.day, lambda one: earlier.prices(table, one), looks)
    ways: dict[str, Callable[[], npt.NDArray[np.int8]]] = {
        "block from 0.5": lambda: np.where(test.believed >= 0.5, BLOCK, 0).astype(np.int8),
        "approve all": lambda: np.zeros(n, np.int8),
        "by cost, nobody looks": lambda: routed(test.believed, test.prices(table, None)),
        f"by cost, {looks} looks, first come": lambda: within_capacity(routed(test.believed, true), test.believed, test.day, true, looks),
        f"by cost, {looks} looks at ${price:.2f} more": lambda: within_capacity(
            routed(test.believed, test.prices(table, price)), test.believed, test.day, true, looks
        ),
        "by cost, looks without end": lambda: routed(test.believed, true),
    }
    days = np.unique(test.day)
    draws = np.random.default_rng(17).choice(len(days), (RESAMPLES, len(days)))
    found, fixed = [], np.zeros(len(days))
    for name, way in ways.items():
        route = way()
        cost = spent(route, test.positive, true)
        by_day = np.array([cost[test.day == day].sum() for day in days])
        if not found:
            fixed = by_day
        low, high = np.percentile((fixed - by_day)[draws].mean(axis=1), (2.5, 97.5)).tolist()
        a_day = {
            "looks": (route == REVIEW).sum(), "blocked": (route == BLOCK).sum(), "missed": (test.positive & (route == 0)).sum(),
        }  # fmt: skip
        looked, blocked, missed = (float(count) / len(days) for count in a_day.values())
        found.append(Policy(name, by_day.mean(), float((fixed - by_day).mean()), low, high, looked, blocked, missed))
    return found


def measured(data: Path, looks: int) -> dict[str, Any]:
    """Gives everything the bench says, JSON-ready."""
    history, _ = fraud_ladder.history_of(data)
    days = history.time_ms / (fraud_ladder.DAY_S * 1000)
    features = fraud_ladder.LADDER["+ terminal risk"]
    boosted, _ = fraud_ladder.fitted(history, features, BoostRecipe(), days)

    def rows(low: int, high: int) -> Rows:
        inside = (days >= low) & (days < high)
        amount = history.of(("amount",))[inside, 0].astype(np.float64)
        return Rows(boosted.probability(history.of(features)[inside]), history.positive[inside], amount, days[inside].astype(np.int64))

    test = rows(fraud_ladder.TEST, fraud_ladder.END)
    earlier = rows(fraud_ladder.CALIBRATE, fraud_ladder.CALIBRATED)
    tables = {name: [asdict(one) for one in policies(test, earlier, table, looks)] for name, table in TABLES.items()}
    return {"rows": len(test.believed), "frauds": int(test.positive.sum()), "days": len(np.unique(test.day)), "tables": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description="What routing by cost saves against a fixed cut of 0.5.")
    parser.add_argument("--data", type=Path, default=fraud_ladder.ROOT.parent / "shared" / "data", help="directory of the data sets")
    parser.add_argument("--looks", type=int, default=100, help="looks that people have time for in a day")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    wanted = parser.parse_args()
    found = measured(wanted.data, wanted.looks)
    if wanted.json:
        print(json.dumps(found))
    else:
        print(f"{found['rows']:,} payments of {found['days']} days, {found['frauds']:,} of them fraud; a day, in dollars")
        for name, table in found["tables"].items():
            print(f"\n{name:54} {'costs':>8} {'saved':>8} {'95 % interval':>18} {'looks':>8} {'blocked':>8} {'missed':>7}")
            for row in table:
                print(
                    f"{row['policy']:54} {row['dollars_a_day']:8,.0f} {row['saved_a_day']:8,.0f} "
                    f"{row['saved_low']:8,.0f} to {row['saved_high']:6,.0f} {row['looks_a_day']:8.1f} {row['blocked_a_day']:8.1f} "
                    f"{row['missed_a_day']:7.1f}"
                )
    pays = all(row["saved_low"] > 0 for table in found["tables"].values() for row in table if "more" in row["policy"])
    sys.exit(0 if pays else 1)


if __name__ == "__main__":
    main()
