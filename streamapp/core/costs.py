"""What a wrong decision costs, and the cuts that make each event take its cheapest route."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from streamapp.core.conditions import Columns
from streamapp.core.document import Mistakes, nearest
from streamapp.core.route import APPROVE, BLOCK, REVIEW

Float64 = npt.NDArray[np.float64]
Money = Annotated[float, Meta(ge=0.0, le=1e12)]
Share = Annotated[float, Meta(ge=0.0, le=1000.0)]


class CostTable(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one tenant in one currency; what is left out is as in `[costs]`."""

    miss: Money | None = None  #               an approved event that should have been blocked
    miss_share: Share | None = None  #         of its amount, on top
    false_alarm: Money | None = None  #        a blocked event that was good
    false_alarm_share: Share | None = None  #  of its amount, on top
    review: Money | None = None  #             one look by people; without it nobody is asked
    review_price: Money | None = None  #       on top, so that no more are held than people can look at
    review_error: Annotated[float, Meta(ge=0.0, lt=0.5)] | None = None  # share of looks that decide wrongly


class CostsSection(CostTable, frozen=True, kw_only=True):
    """Prices for all tenants, and where some differ. `[thresholds] approve = "cost"` and `block = "cost"` make them decide."""

    amount: Annotated[str, Meta(min_length=1)] | None = None  # number field that the shares are taken of; a missing one is 0
    tenant: dict[str, CostTable] = {}


_DEFAULTS: Mapping[str, float] = {
    "miss": 0.0, "miss_share": 0.0, "false_alarm": 0.0, "false_alarm_share": 0.0,
    "review": np.inf, "review_price": 0.0, "review_error": 0.0,
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Prices:
    """Columns of one micro-batch: what each of n events would cost if it went wrong."""

    miss: Float64
    alarm: Float64
    review: Float64  #  with its price; inf where nobody is asked
    error: Float64

    def of(self, rows: npt.NDArray[np.intp]) -> Prices:
        """Gives the prices of `rows` alone."""
        return Prices(self.miss[rows], self.alarm[rows], self.review[rows], self.error[rows])

    def expected(self, probability: Float64) -> Float64:
        """Gives the expected cost of approve, review and block for each row [n, 3], in the order of the route codes."""
        found = np.empty((len(probability), 3))
        found[:, APPROVE] = probability * self.miss
        found[:, BLOCK] = (1.0 - probability) * self.alarm
        found[:, REVIEW] = self.review + self.error * (found[:, APPROVE] + found[:, BLOCK])
        return found

    def cuts(self) -> tuple[Float64, Float64]:
        """Gives per row the probabilities below which approving and from which blocking is the cheapest of the three routes.

        Without people both are alarm / (alarm + miss): 5 / (5 + 150) = 0.032 for a miss of 150 and a false alarm of 5 (Elkan 2001,
        theorem 1). With people, of whom the share e errs, approving is cheaper than a look below (r + e a) / ((1 - e) m + e a), and
        blocking from ((1 - e) a - r) / ((1 - e) a + e m); where these cross, a look pays at no probability.
        Law: the route by these cuts has the least expected cost, ties go to the stricter one.
        """
        alarm, miss, error = self.alarm, self.miss, self.error
        right = 1.0 - error
        with np.errstate(all="ignore"):  # an infinite cut is clipped below
            approve = _ratio(self.review + error * alarm, right * miss + error * alarm)
            block = _ratio(right * alarm - self.review, right * alarm + error * miss, 0.0)
        alone = _ratio(alarm, alarm + miss)
        crossed = ~(approve < block)
        bounded = (np.clip(np.where(crossed, alone, cut), 0.0, 1.0) for cut in (approve, block))
        return next(bounded), next(bounded)


class Costs:
    """The `[costs]` of a pipeline as a table by tenant."""

    def __init__(self, section: CostsSection) -> None:
        """Takes the section; a tenant that it does not name has the prices of all."""
        self.amount = section.amount
        self._tenants = {name: place for place, name in enumerate(section.tenant, 1)}
        rows = [section, *section.tenant.values()]
        self._table = {
            name: np.array([next(v for v in (getattr(row, name), getattr(section, name), default) if v is not None) for row in rows])
            for name, default in _DEFAULTS.items()
        }

    def prices(self, columns: Columns, tenants: Sequence[str]) -> Prices:
        """Takes the columns that the amount is read from and each row's tenant; gives the prices of each row. O(n)."""
        n = len(tenants)
        which = np.fromiter(map(self._tenants.get, tenants, _zeros(n)), np.intp, n) if self._tenants else np.zeros(n, np.intp)
        row = {name: values[which] for name, values in self._table.items()}
        amount = 0.0 if self.amount is None else np.nan_to_num(columns.numbers(self.amount), nan=0.0)
        return Prices(
            row["miss"] + row["miss_share"] * amount, row["false_alarm"] + row["false_alarm_share"] * amount,
            row["review"] + row["review_price"], row["review_error"],
        )  # fmt: skip


def check_costs(section: CostsSection | None, asked: bool, numbers: Collection[str], mistakes: Mistakes) -> None:
    """Notes every mistake in `[costs]`; `asked` says whether a cut goes by cost, `numbers` names the number fields."""
    if section is None:
        if asked:
            mistakes.add("thresholds", 'a cut is "cost", and there is no [costs]; add it with `miss` and `false_alarm`')
        return
    if not asked:
        mistakes.add("costs", 'no cut goes by cost; write approve = "cost" or block = "cost" in [thresholds], or remove [costs]')
    shares = [
        name for name in ("miss_share", "false_alarm_share") if any(getattr(one, name) for one in (section, *section.tenant.values()))
    ]
    if shares and section.amount is None:
        mistakes.add(f"costs.{shares[0]}", 'a share of what? add `amount = "..."`, a number field')
    if section.amount is not None and section.amount not in numbers:
        mistakes.add("costs.amount", f"`{section.amount}` is no number field of the event{nearest(section.amount, numbers)}")
    for name, words in (("miss", "a miss"), ("false_alarm", "a false alarm")):
        if not getattr(section, name) and not getattr(section, f"{name}_share"):
            mistakes.add(f"costs.{name}", f"{words} costs nothing; say what it costs")


def _zeros(n: int) -> Sequence[int]:
    return (0,) * n


def _ratio(part: Float64, whole: Float64, otherwise: float = 1.0) -> Float64:
    """`otherwise` where the whole is 0: what can lose nothing is approved, and what costs nothing is blocked, at any probability."""
    return np.divide(part, whole, out=np.full_like(whole, otherwise), where=whole > 0.0)
