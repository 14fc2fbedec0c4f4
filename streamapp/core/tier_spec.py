"""The `[[tiers]]` of a pipeline file: what each tier of the cascade is, where it decides, and what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from streamapp.core.document import Mistakes
from streamapp.core.expressions import parse_expression

Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]
RouteName = Literal["approve", "review", "block"]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
#: "card": what the model's card promises; "cost": what `[costs]` makes cheapest, row by row; "never": this tier does not decide so.
Cut = Literal["card", "cost", "never"] | Probability
#: What a version may be called: the name of a directory that is seen and lies in its model's.
VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
TIME_MS_MAX = 400
"""A rebalance waits for micro-batches in flight (`revoke_wait_ms`), and the group with it: a tier has answered soon, or is passed over."""


class ThresholdsSection(msgspec.Struct, frozen=True, kw_only=True):
    """Probability cuts of tiers that name none: the card's promise, a number, or what `[costs]` makes cheapest; and the last resort."""

    block: Literal["card", "cost"] | Probability = "card"
    approve: Literal["card", "cost"] | Probability = "card"
    base_rate: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None  # share of positives now, where it is no longer the card's
    default_route: RouteName = "review"


class TierSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tier of the cascade: a model (the newest version unless `version` names one), an expression, or a Python callable.

    An event leaves below `approve`, from `block` on, and from `review` on (people look, no further tier is asked); between them the next
    tier is asked, and behind the last one people are. Where only `review` is named, what lies below it is approved.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
    model: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")] | None = None
    expression: Text | None = None  #   over features and number fields; gives the probability
    callable: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")] | None = None  # "module:name"; gives probabilities
    version: Annotated[str, Meta(pattern=VERSION)] | None = None
    reads: tuple[Text, ...] = ()  #     fields and features a callable is given
    approve: Cut | None = None  #       None: as [thresholds] says
    review: Probability | None = None
    block: Cut | None = None
    labels: dict[str, Probability] = {}  # of a multi-label model: from which probability on a label is named; the card's otherwise
    rows_max: Count | None = None  #    rows of one micro-batch it is asked about, the likeliest positives first
    time_ms: Annotated[int, Meta(ge=1, le=TIME_MS_MAX)] | None = None  # it runs beside the loop and has this long per micro-batch
    rows_per_call: Count = 32  #        with time_ms: rows between two looks at the clock

    def says(self, cut: Literal["approve", "block"], thresholds: ThresholdsSection) -> Cut:
        """Gives the cut that holds for this tier: its own, or that of all tiers."""
        own: Cut | None = getattr(self, cut)
        if own is None and cut == "approve" and self.review is not None:
            own = self.review
        general: Cut = getattr(thresholds, cut)
        return general if own is None else own


def check_tiers(tiers: Sequence[TierSpec], thresholds: ThresholdsSection, mistakes: Mistakes) -> None:
    """Adds what is wrong with the tiers; that names are known and cards fit is found where models are loaded."""
    for place, tier in enumerate(tiers):
        at = f"tiers[{place}]"
        if sum(kind is not None for kind in (tier.model, tier.expression, tier.callable)) != 1:
            mistakes.add(at, f"{tier.name}: name either a `model`, an `expression` or a `callable`")
            continue
        if tier.expression is not None:
            if tier.version is not None:
                mistakes.add(f"{at}.version", f"{tier.name}: an expression has no versions; remove it")
            if isinstance(tree := parse_expression(tier.expression), str):
                mistakes.add(f"{at}.expression", f"{tier.name}: {tree}")
            if tier.time_ms is not None:
                mistakes.add(f"{at}.time_ms", f"{tier.name}: an expression takes no time worth waiting for; remove it")
        if tier.callable is not None:
            _check_callable(at, tier, mistakes)
        elif tier.reads:
            mistakes.add(f"{at}.reads", f"{tier.name}: only a `callable` is told what to read; remove it")
        if tier.model is None and tier.labels:
            mistakes.add(f"{at}.labels", f"{tier.name}: only a `model` has labels; remove it")
        if tier.model is None:
            _check_no_card(at, tier, thresholds, mistakes)
        _check_cuts(at, tier, thresholds, mistakes)


def _check_callable(at: str, tier: TierSpec, mistakes: Mistakes) -> None:
    if tier.version is None:
        mistakes.add(f"{at}.version", f"{tier.name}: a callable needs a `version`, so that verdicts can say which one decided")
    if tier.time_ms is None:
        mistakes.add(f"{at}.time_ms", f"{tier.name}: a callable needs `time_ms`: how long a micro-batch waits for it, 1 to {TIME_MS_MAX}")
    if not tier.reads:
        mistakes.add(f"{at}.reads", f"{tier.name}: a callable needs `reads`, the fields and features it is given")


def _check_no_card(at: str, tier: TierSpec, thresholds: ThresholdsSection, mistakes: Mistakes) -> None:
    kind = "an expression" if tier.expression is not None else "a callable"
    for cut in ("approve", "block"):
        if getattr(tier, cut) == "card":
            mistakes.add(f"{at}.{cut}", f'{tier.name} is {kind} and has no card; write a probability or "never"')
        elif tier.says(cut, thresholds) == "card":
            mistakes.add(f"thresholds.{cut}", f"tier {tier.name} is {kind} and has no card; write a probability")


def _check_cuts(at: str, tier: TierSpec, thresholds: ThresholdsSection, mistakes: Mistakes) -> None:
    named = [("approve", tier.says("approve", thresholds)), ("review", tier.review), ("block", tier.says("block", thresholds))]
    numbers = [(name, cut) for name, cut in named if isinstance(cut, float)]
    for (low_name, low), (high_name, high) in pairwise(numbers):
        own = getattr(tier, low_name) is not None or getattr(tier, high_name) is not None
        if own and low > high:
            mistakes.add(f"{at}.{low_name}", f"{tier.name}: {low:g} is above {high_name} = {high:g}; it must not be higher")
