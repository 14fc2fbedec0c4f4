"""What was decided for one micro-batch, as columns in plan order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
