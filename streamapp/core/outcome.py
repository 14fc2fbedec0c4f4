"""What was decided for one micro-batch, as columns in plan order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt

from streamapp.core.cascade import Degraded, TierUse
from streamapp.core.events import Plan
from streamapp.core.explain import Reason
from streamapp.core.features import FeatureSet
from streamapp.core.rules import RuleHits
from streamapp.core.shared import SharedEntries
from streamapp.core.state import Step


@dataclass(slots=True)
class Outcome:
    """One verdict per good event of the plan; its rejects stay in `plan.rejects`. NaN in a number: no model answered."""

    plan: Plan
    features: FeatureSet
    hits: RuleHits
    score: npt.NDArray[np.float64]  #         n, raw
    probability: npt.NDArray[np.float64]  #   n, calibrated
    threshold: npt.NDArray[np.float64]  #     n, the cut it was compared with
    route: npt.NDArray[np.int8]  #            n
    decided_by: npt.NDArray[np.int8]  #       n, index into Serving.deciders
    reasons: list[Sequence[Reason]]  #        n, empty where approved
    degraded: tuple[Degraded, ...]
    decided_at: int  #                        epoch ms
    stage_ms: dict[str, float]
    steps: list[Step]  #                      how the partitions' states moved: the delta for the log
    shared: Mapping[str, SharedEntries] = field(default_factory=dict)  # by store: what other workers are told once this is acknowledged
    lists: str | None = None  #               version of the lists that decided; None where none are declared
    labels: npt.NDArray[np.object_] | None = None  #  n tuples; None where each tier has one positive class
    uses: Sequence[TierUse] = ()  #                     of a cascade of several tiers
    watched: npt.NDArray[np.float64] | None = None  #   n, raw score of the first model, which its card knows; None: as `score`


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Takes at least one Outcome of one release; gives all their rows and rejects as one, in order, for whoever counts.

    What is told per micro-batch (degraded, stage times, uses), and what is told of a row (reasons, ids, fields), is left out.
    """
    if len(outcomes) == 1:
        return outcomes[0]
    plans, cat = [one.plan for one in outcomes], np.concatenate
    first = [0, *accumulate(len(plan.segments) for plan in plans)]
    rejects = [replace(reject, segment=reject.segment + at) for plan, at in zip(plans, first, strict=False) for reject in plan.rejects]
    plan = Plan(
        tuple(chain.from_iterable(plan.segments for plan in plans)), [],
        cat([plan.segment + np.int32(at) for plan, at in zip(plans, first, strict=False)]), cat([plan.index for plan in plans]), [], [],
        cat([plan.event_time for plan in plans]), cat([plan.received_at for plan in plans]), cat([plan.flags for plan in plans]), rejects,
    )  # fmt: skip
    measured, hits = [one.features for one in outcomes], [one.hits for one in outcomes]
    values = cat([one.values.T for one in measured], axis=1).T
    missing, clipped = (np.sum([getattr(one, name) for one in measured], axis=0) for name in ("missing", "clipped"))
    hit = replace(hits[0], hit=cat([one.hit for one in hits]), shadow=cat([one.shadow for one in hits]), told=None)
    score, probability, threshold, route, decided_by = (
        cat([getattr(one, name) for one in outcomes]) for name in ("score", "probability", "threshold", "route", "decided_by")
    )
    last = outcomes[-1]
    own = [one.watched for one in outcomes if one.watched is not None]  # of one release all have one, or none
    watched = cat(own) if own else None
    features = replace(measured[0], values=values, missing=missing, clipped=clipped)
    return Outcome(plan, features, hit, score, probability, threshold, route, decided_by, [], (), last.decided_at, {}, [], watched=watched)
