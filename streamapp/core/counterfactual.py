"""What would have been decided milder: one number of the event changed, all else as it was; tried before it is told."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.attribution import paths_of
from streamapp.core.calibrate import margin_below
from streamapp.core.card import Scaler
from streamapp.core.explain import Reason
from streamapp.core.expressions import parse_expression
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.language import Words, shown
from streamapp.core.margin_curve import DOWN, NEITHER, NOT_FOUND, UP, Steps, steps_of
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.spec import ReasonsSection, RuleSpec
from streamapp.core.tiers import Tier

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

#: How a sentence compares; the number that is told is the last that is good (at) or the first that is not (below, above).
AT_MOST, AT_LEAST, BELOW, ABOVE = "at_most", "at_least", "below", "above"
#: Inputs of the model that are tried for one row.
TRIES = 2
#: Decimal places of what is told of a number that is no count.
PLACES = 2
CODES = tuple(f"counterfactual_{name}" for name in ROUTE_NAMES[:-1])


class Change(NamedTuple):
    """One feature of one row set to another value, and how that is said."""

    row: int
    place: int  #    among the features
    value: float
    word: str
    limit: float  #  the number that is told


class Flip(NamedTuple):
    """The change that makes one comparison of a rule false."""

    place: int
    value: float
    word: str
    limit: float


#: Takes rows (one may stand several times), feature places and new values; gives the route each row would get.
Reroute = Callable[[Rows, Rows, Float64], npt.NDArray[np.int8]]


@dataclass(slots=True, frozen=True)
class Searchable:
    """A tier whose margin can be followed along its inputs."""

    steps: Steps
    places: Rows  #      its inputs among the features
    direction: npt.NDArray[np.int8]  # of risk, per input


class Counterfactuals:
    """Everything that is the same for all events: flips of the rules' comparisons, steps of the trees, sentences."""

    def __init__(
        self,
        section: ReasonsSection,
        rules: Sequence[RuleSpec],
        features: Sequence[FeatureDef],
        tiers: Sequence[Tier],
        places: Rows,
        words: Words,
    ) -> None:
        """Takes the live rules in their order, all features, and the features that enter the first model."""
        self.rows_max = section.counterfactual_rows
        self._names = [feature.name for feature in features]
        self._whole = np.array([feature.whole for feature in features], np.bool_)
        at = {feature.name: place for place, feature in enumerate(features)}
        self._flips = [flips(rule.when, at, self._whole) for rule in rules]
        turn = {"up": UP, "down": DOWN}
        directions = np.array([turn[section.monotone[name]] if name in section.monotone else NEITHER for name in self._names], np.int8)
        self._tiers = [_searchable(tier, places if tier.own is None else tier.own.places, directions) for tier in tiers]
        self._fixed: dict[tuple[int, float], float] = {}  # by tier and cut, the margin of a cut that is one for all rows
        self._said: dict[tuple[int, str, int], str] = {}
        for place, name in enumerate(self._names):
            things = words.counted(name)
            for word in (AT_MOST, AT_LEAST, BELOW, ABOVE):
                counted = things is not None and word in (AT_MOST, AT_LEAST)
                fixed = {"things": things or ""} if counted else {"feature": words.feature(name)}
                for route, route_name in enumerate(ROUTE_NAMES[:-1]):
                    said = words.template(f"counted_{word}" if counted else word, route=words.route(route_name), **fixed)
                    self._said[place, word, route] = said

    def by_rules(self, hit: npt.NDArray[np.bool_], rows: Rows) -> list[Change]:
        """Takes which live rules hit which of n rows; gives a change for each comparison of each rule that hits one of `rows`."""
        found: list[Change] = []
        for rule in np.flatnonzero(hit[rows].any(axis=0)).tolist():
            for flip in self._flips[rule]:
                found += [Change(row, *flip) for row in rows[hit[rows, rule]].tolist()]
        return found

    def by_model(
        self, place: int, tier: Tier, rows: Rows, numeric: npt.NDArray[np.float32], shares: Float64, cuts: Sequence[Float64 | float | None]
    ) -> list[Change]:
        """Takes m rows that a tier held or blocked, its inputs [m, k], their shares of the margin, and its cuts of approve and block.

        Gives for each row the change of one input that brings it below the lower cut, else below the upper one. An input is tried where
        it is declared monotone and speaks for the label, the strongest first, TRIES at most.
        """
        searchable = self._tiers[place]
        if searchable is None or tier.model is None or not rows.size:
            return []
        margins = searchable.steps.paths.bias + shares.sum(axis=1)
        shares = np.where(searchable.direction[None] != NEITHER, shares[:, : numeric.shape[1]], 0.0)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :TRIES].astype(np.int32)
        order[shares[np.arange(len(rows))[:, None], order] <= 0.0] = NOT_FOUND
        bounds = np.empty((len(rows), len(cuts)))
        for at, cut in enumerate(cuts):
            bounds[:, at] = self._bound(place, tier, cut)
        steps = searchable.steps
        found = steps.search(numeric, order, searchable.direction, bounds, margins)
        changes: list[Change] = []
        for row, (at, _, cut) in zip(rows.tolist(), found.tolist(), strict=True):
            if at != NOT_FOUND:
                feature = int(searchable.places[at])
                threshold = float(steps.threshold[steps.first[at] + cut])
                changes.append(Change(row, feature, *_told(threshold, bool(self._whole[feature]), searchable.direction[at] == UP)))
        return changes

    def reasons(self, changes: Sequence[Change], values: Float64, route: npt.NDArray[np.int8], reroute: Reroute) -> dict[int, Reason]:
        """Takes changes, features [n, f] and routes [n]; gives each row's reason: of the changes that help the mildest, then the first.

        Law: what is told was tried: the row with that one value decided again takes the route that is named.
        """
        if not changes:
            return {}
        rows, places = (np.array([change[column] for change in changes], np.intp) for column in (0, 1))
        new = reroute(rows, places, np.array([change.value for change in changes]))
        best: dict[int, tuple[int, Change]] = {}
        for change, there in zip(changes, new.tolist(), strict=True):
            if there < (best[change.row][0] if change.row in best else route[change.row]):
                best[change.row] = there, change
        return {row: self._reason(there, change, float(values[row, change.place])) for row, (there, change) in best.items()}

    def _reason(self, route: int, change: Change, was: float) -> Reason:
        text = self._said[change.place, change.word, route] % {"limit": shown(change.limit), "value": shown(was)}
        return Reason(CODES[route], text, self._names[change.place], round(was, 4), change.limit)

    def _bound(self, place: int, tier: Tier, cut: Float64 | float | None) -> Float64 | float:
        """The margin below which the probability is below the cut, per row where cuts are; no margin is below what is no cut."""
        if cut is None or tier.model is None:
            return -np.inf
        if isinstance(cut, np.ndarray):
            return margin_below(cut, tier.model.calibration, tier.base_rates)
        if (place, cut) not in self._fixed:
            self._fixed[place, cut] = float(margin_below(np.array([cut]), tier.model.calibration, tier.base_rates)[0])
        return self._fixed[place, cut]


def flips(when: str, places: Mapping[str, int], whole: npt.NDArray[np.bool_]) -> list[Flip]:
    """Takes a rule's condition; gives what makes each comparison of a feature with a constant false. Others are left alone."""
    tree = parse_expression(when)
    found: list[Flip] = []
    for node in ast.walk(tree) if isinstance(tree, ast.expr) else ():
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        left, op, right = node.left, node.ops[0], node.comparators[0]
        mirrored = isinstance(left, ast.Constant)
        named, said = (right, left) if mirrored else (left, right)
        if not (isinstance(named, ast.Name) and named.id in places and isinstance(said, ast.Constant)):
            continue
        constant = said.value
        if not isinstance(constant, (int, float)) or isinstance(constant, bool):
            continue
        kinds = {ast.Gt: (1, False), ast.GtE: (1, True), ast.Lt: (-1, False), ast.LtE: (-1, True)}
        if type(op) not in kinds:
            continue
        side, with_equal = kinds[type(op)]
        place = places[named.id]
        found.append(_flip(place, float(constant), -side if mirrored else side, with_equal, bool(whole[place])))
    return found


def _flip(place: int, constant: float, side: int, with_equal: bool, whole: bool) -> Flip:
    """`side` 1: the comparison is true above the constant."""
    if side > 0:
        if whole:
            most = math.ceil(constant) - 1.0 if with_equal else math.floor(constant)
            return Flip(place, most, AT_MOST, most)
        return Flip(place, np.nextafter(constant, -np.inf), BELOW, constant) if with_equal else Flip(place, constant, AT_MOST, constant)
    if whole:
        least = math.floor(constant) + 1.0 if with_equal else math.ceil(constant)
        return Flip(place, least, AT_LEAST, least)
    return Flip(place, np.nextafter(constant, np.inf), ABOVE, constant) if with_equal else Flip(place, constant, AT_LEAST, constant)


def _told(threshold: float, whole: bool, up: bool) -> tuple[float, str, float]:
    """Gives the value on the good side of a threshold that people would write: a whole number, or one with few places."""
    unit = 1.0 if whole else 10.0**-PLACES
    value = round(math.floor(threshold / unit) * unit, PLACES)
    if up:
        return value, AT_MOST, value
    value = round(value + unit, PLACES)
    return value, AT_LEAST, value


def _searchable(tier: Tier, places: Rows, directions: npt.NDArray[np.int8]) -> Searchable | None:
    """None for a tier that is no binary model of trees on numbers as they are, and where no input of it is declared monotone."""
    trees = getattr(tier.model, "trees", None)
    if tier.model is None or trees is None or tier.model.card.task != "binary" or not _plain(tier.model.card.scaler):
        return None
    direction = directions[places]
    if not direction.any():
        return None
    steps, k = steps_of(paths_of(trees)), len(places)
    none = np.zeros((0, 2))
    steps.search(np.zeros((0, k), np.float32), np.zeros((0, 1), np.int32), direction, none, none[:, 0])  # compiled before the first event
    return Searchable(steps, places, direction)


def _plain(scaler: Scaler) -> bool:
    return not scaler.low and set(scaler.mean) <= {0.0} and set(scaler.scale) <= {1.0}
