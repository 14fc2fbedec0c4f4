"""What a worker decides with and what was read for a micro-batch: the two frozen inputs of the line beside the events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamapp.core import cascade
from streamapp.core.costs import Costs
from streamapp.core.counterfactual import Counterfactuals
from streamapp.core.decode import Decoder
from streamapp.core.encode import VerdictEncoder, Versions
from streamapp.core.explain import ModelReasons, Sentences
from streamapp.core.features.plan import FeaturePlan, Texts
from streamapp.core.labels import LabelPlan, LabelRead
from streamapp.core.lists import ListPlan
from streamapp.core.lists_table import ListTable
from streamapp.core.normal import Normals
from streamapp.core.predictions import Predictions
from streamapp.core.rules import Rules
from streamapp.core.shared import SharedPlan, SharedRead
from streamapp.core.spec import PipelineSpec
from streamapp.core.state import StatePlan
from streamapp.core.velocity import VelocityFeature

#: `decided_by`: rules, then the tiers by name, then the default, then the lists that decide.
RULE, DEFAULT = "rule", "default"


@dataclass(slots=True, frozen=True)
class Serving:
    """Everything versioned that decides, frozen together; a worker swaps it between two micro-batches."""

    release: str
    code: int  #                                   of the release, where a name is too long: with remembered decisions
    spec: PipelineSpec
    decoder: Decoder
    state: StatePlan
    shared: SharedPlan
    labels: LabelPlan
    features: FeaturePlan
    rules: Rules
    tiers: tuple[cascade.Tier, ...]
    explainers: tuple[ModelReasons | None, ...]  # by tier; None where the model cannot say why
    deciders: tuple[str, ...]  #                   names behind Outcome.decided_by
    encoder: VerdictEncoder
    versions: Versions
    default_route: int
    sentences: Sentences
    numeric: npt.NDArray[np.intp]  #               feature columns that enter the models, in the cards' order
    predictions: Predictions | None = None  #      where scores are used again
    explains: bool = True  #                       whether reasons are told; False where no output carries them
    lists: ListPlan | None = None  #               where lists are declared
    normals: Normals | None = None  #              of the entities, where the pipeline declares them
    counterfactuals: Counterfactuals | None = None
    costs: Costs | None = None  #                  where a cut goes by cost
    absent: tuple[cascade.Degraded, ...] = ()  #   tiers whose model is not there, where others are: every verdict names them

    @property
    def waits(self) -> bool:
        """Whether a tier is asked beside the event loop."""
        return any(tier.time_ms is not None for tier in self.tiers)

    @property
    def windows(self) -> tuple[VelocityFeature, ...]:
        """The features of all windows, in the order of their columns: local, shared, of labels."""
        return (*self.state.features, *self.shared.features, *self.labels.features)

    @property
    def models(self) -> tuple[cascade.Scorer, ...]:
        """The models of the tiers that have one, cheapest first."""
        return tuple(tier.model for tier in self.tiers if tier.model is not None)


@dataclass(slots=True, frozen=True)
class Read:
    """What prefetch brought for a plan's keys; empty where nothing is configured."""

    profiles: npt.NDArray[np.float64] | None = None  #  n x features.profiles.columns, NaN where not known; None: none were read
    degraded: tuple[cascade.Degraded, ...] = ()
    shared: SharedRead | None = None  #                windows of entities that cross partitions; None: all of them are missing
    texts: Texts | None = None  #                       what was read of the texts meanwhile
    texts_ms: float = 0.0
    labels: LabelRead | None = None  #                  what turned out to be true; None: nothing is known
    lists: ListTable | None = None  #                  what is on the lists now; None: what the pipeline file says
