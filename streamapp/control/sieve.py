"""The first tier of a text cascade: a logistic on what is counted in a text, without n-grams, that approves what is plainly harmless."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from streamapp.control.dataset import Columns
from streamapp.control.fit import Fitted, Labels, Progress, Recipe, Table, fit, unseen
from streamapp.control.split import Split
from streamapp.control.thresholds import approve_share
from streamapp.core.calibrate import probability
from streamapp.core.features import text

NAMES = tuple(feature.name for feature in text.FEATURES)


@dataclass(slots=True, frozen=True)
class SieveRecipe:
    """What a sieve promises; it stands in the card."""

    miss_rate: float = 0.01  #     of all positives, the share it may approve
    share: float | None = None  #  of all rows, the share it is to approve, whatever that misses; instead of `miss_rate`
    penalties: tuple[float, ...] = (10.0, 100.0)  # scikit-learn's C, chosen on validation: few inputs need little restraint


def sieve_table(found: Columns, positive: Labels) -> Table:
    """Gives what a sieve may see of these features."""
    return Table(found.of(NAMES), None, positive, np.arange(len(positive)))


def fit_sieve(table: Table, split: Split, recipe: Recipe, own: SieveRecipe, progress: Progress) -> Fitted:
    """Takes rows of `sieve_table` and their split; gives the logistic fitted on the training part, with the approve cut of `own`.

    The cut is chosen on rows that it was not fitted on, as those of every linear model (`fit`).
    """
    fitted = fit(table, NAMES, split, replace(recipe, augment=False, miss_rate=own.miss_rate, penalties=own.penalties), 0, None, progress)
    if own.share is None:
        return fitted
    validation = table.rows(split.validation)
    margins = unseen(split, fitted.unseen_margins, fitted.margins(validation))
    truth = unseen(split, table.positive[split.train], validation.positive)
    believed = probability(margins[:, None], "binary", fitted.calibration)[:, 0]
    return replace(fitted, approve=approve_share(believed, truth, own.share, recipe.positives_min))
