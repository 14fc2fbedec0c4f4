"""From a pipeline file and a models directory to one frozen Serving: loaded beside what serves now, checked, then one value to swap in."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp import pipeline, policy
from streamapp.control.cascade import tiers_of
from streamapp.control.languages import load_language
from streamapp.control.rehearsal import rehearse
from streamapp.core.card import Card, Scaler
from streamapp.core.cascade import NO_MODEL, Degraded
from streamapp.core.costs import Costs
from streamapp.core.counterfactual import Counterfactuals
from streamapp.core.decode import Decoder
from streamapp.core.document import Mistakes, nearest
from streamapp.core.encode import COLUMNS, VerdictEncoder, Versions
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.events import Plan
from streamapp.core.examples import example_of, least_event, segment_of
from streamapp.core.explain import ModelReasons, Sentences
from streamapp.core.features import FeatureSet
from streamapp.core.features.plan import FeaturePlan
from streamapp.core.labels import LabelPlan, LabelRead, LabelState
from streamapp.core.language import Language, Words
from streamapp.core.lists import ListPlan, Lookup
from streamapp.core.normal import Normals
from streamapp.core.predictions import Predictions
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.rules import compile_rules
from streamapp.core.ruling import vocabulary
from streamapp.core.schema import event_version
from streamapp.core.shared import SharedPlan, SharedRead, SharedState
from streamapp.core.spec import PipelineSpec
from streamapp.core.state import Remembered, StatePlan
from streamapp.core.tiers import Tier
from streamapp.core.vectorise import Inputs, Ngrams, scale
from streamapp.core.velocity import duration_ms
from streamapp.core.windows_partition import PartitionState
from streamapp.ports import Model

Float64 = npt.NDArray[np.float64]


class LoadModel(Protocol):
    """How a model version is read and checked (adapters.models.load_model)."""

    def __call__(
        self, directory: Path, *, feature_spec: str | None, vectorise: Callable[[Card, list[dict[str, Any]]], Inputs] | None
    ) -> Model: ...


def load_serving(
    spec: PipelineSpec,
    models: Path,
    entity_key: bytes,
    load_model: LoadModel,
    latest_version: Callable[[Path, str], str],
    language: str = "",
) -> pipeline.Serving:
    """Gives the Serving of `spec` with its tiers' models, warmed up and smoke-tested; an empty registry is valid: rules decide.

    Reasons are told in `language`, a name or a path, else in the pipeline's own.
    Raises ModelRejected or ConfigError; what serves meanwhile is not touched.
    """
    spoken = load_language(language or spec.reasons.language)
    bare = assemble(spec, {}, entity_key, spoken)
    check_examples(bare)
    loaded: dict[str, Model] = {}
    for tier in spec.tiers:
        if tier.model is None or (tier.version is None and not (models / tier.model).is_dir()):
            continue
        directory = models / tier.model / (tier.version or latest_version(models, tier.model))
        loaded[tier.name] = load_model(
            directory, feature_spec=bare.features.hash, vectorise=lambda card, events: inputs_of(bare, card, events)
        )
    serving = assemble(spec, loaded, entity_key, spoken)
    rehearse(serving)
    return serving


def assemble(spec: PipelineSpec, models: Mapping[str, Model], entity_key: bytes, language: Language | None = None) -> pipeline.Serving:
    """Takes the models by tier name (a tier without one is left out) and the language of reasons, by default the pipeline's own.

    Gives the frozen bundle. Raises ConfigError, ModelRejected.
    """
    state = StatePlan(spec)
    shared = SharedPlan(spec)
    labels = LabelPlan(spec)
    features = FeaturePlan(spec, (*state.features, *shared.features, *labels.features))
    words = vocabulary(spec, features.definitions)
    language = language or load_language(spec.reasons.language)
    own = language.language.name == spec.reasons.language
    said = Words(language, spec, (*state.features, *shared.features, *labels.features), spec.vector.numeric, own=own)
    rules = compile_rules(said.rules(spec.rules), words.types, lists=words.lists, domain=words.domain)
    tiers = tiers_of(spec, models, features, words.types)
    learned = [(tier.name, tier.model) for tier in tiers if tier.model is not None]
    cards = [model.card for _, model in learned]
    unlearned = [(tier.name, *wording) for tier in tiers if (wording := tier.wording) is not None]
    scaler = cards[0].scaler if cards else None
    lists = ListPlan(spec, said) if spec.lists else None
    deciders = (pipeline.RULE, *(tier.name for tier in tiers), pipeline.DEFAULT, *(lists.deciders if lists else ()))
    cuts = {tier.name: [*tier.said, spec.costs] for tier in tiers}
    versions = Versions(
        release=_digest(
            [
                spec,
                features.hash,
                rules.version,
                [(card.name, card.version, card.onnx_sha256) for card in cards],
                cuts,
                language,
                *unlearned,
            ]
        ),
        schema=event_version(spec),
        features=features.hash[:12],
        rules=rules.version[:12],
        models={name: f"{model.card.name}/{model.card.version}" for name, model in learned}
        | {name: f"{kind}/{text if kind == 'callable' else _digest(text)}" for name, kind, text in unlearned},
        calibration={name: model.card.calibration_sha256[:12] for name, model in learned},
        thresholds=_digest(cuts),
    )
    encoder = VerdictEncoder(
        pipeline=spec.pipeline.name,
        entity_field=spec.pipeline.key,
        text_field=spec.features.text.field if spec.features.text else None,
        fields=_verdict_fields(spec, features),
        versions=versions,
        deciders=deciders,
        labels=cards[-1].labels if cards else (),
        features=features.definitions,
        entity_key=entity_key,
    )
    return pipeline.Serving(
        release=versions.release,
        code=int(versions.release[:7], 16),
        spec=spec,
        decoder=Decoder(spec),
        state=state,
        shared=shared,
        labels=labels,
        features=features,
        rules=rules,
        tiers=tiers,
        explainers=tuple(_explainer(tier, said) for tier in tiers),
        deciders=deciders,
        default_route=ROUTE_NAMES.index(spec.thresholds.default_route),
        encoder=encoder,
        versions=versions,
        numeric=features.places(scaler.names if scaler else ()),
        lists=lists,
        sentences=Sentences(said),
        normals=Normals(spec.reasons.normal, words.types) if spec.reasons.normal else None,
        counterfactuals=_counterfactuals(spec, features, tiers, scaler, said),
        costs=None if spec.costs is None else Costs(spec.costs),
        predictions=_predictions(spec, versions.release),
        explains="reasons" in _verdict_fields(spec, features).values(),
        absent=_absent(spec, tiers),
    )


def _absent(spec: PipelineSpec, tiers: Sequence[Tier]) -> tuple[Degraded, ...]:
    """Of a release, not of a micro-batch: what is told of an event does not hang on what came with it. None at all: the cascade says so."""
    there = {tier.name for tier in tiers}
    return tuple(Degraded(f"model:{one.name}", NO_MODEL) for one in spec.tiers if there and one.name not in there)


def _predictions(spec: PipelineSpec, release: str) -> Predictions | None:
    cache = spec.prediction_cache
    return None if cache is None else Predictions(release, duration_ms(cache.ttl), cache.most)


def inputs_of(serving: pipeline.Serving, card: Card, events: Sequence[Mapping[str, Any]]) -> Inputs:
    """Gives the model inputs of example events, the way the line makes them from an empty state.

    Raises ModelRejected for an example that is no event.
    """
    plan = pipeline.plan([segment_of(events, key=serving.spec.pipeline.key)], serving)
    if plan.rejects:
        raise ModelRejected(f"a smoke example is no event of this pipeline: {plan.rejects[0].path}: {plan.rejects[0].message}")
    features, ngrams, _ = measured(plan, [serving.state.new()], serving.shared.new(), serving, serving.labels.new())
    numeric = scale(features.values[:, serving.features.places(card.scaler.names)], card.scaler)
    return Inputs(numeric, ngrams if card.ngram_buckets else None)


def measured(
    plan: Plan, states: Sequence[PartitionState], shared: SharedState, serving: pipeline.Serving, labels: LabelState | None = None,
    profiles: Float64 | None = None,
) -> tuple[FeatureSet, Ngrams | None, Remembered]:  # fmt: skip
    """Gives the features that `decide` would decide by, and moves the states as it would: for whoever wants no verdict.

    `profiles` are those of the rows' entities [n, columns]; None: none were read, as of an entity that nothing is known of.
    """
    remembered = serving.state.advance(plan, states)
    read = SharedRead(serving.shared.asks(plan), shared)
    windows = [remembered.values, serving.shared.answer(len(plan), remembered, read).values]
    if serving.labels.stores:
        known = None if labels is None else LabelRead(labels)
        windows.append(serving.labels.answer(plan, remembered, known, read).values)
    features, ngrams = serving.features.measure(plan, profiles, np.hstack(windows))
    return features, ngrams, remembered


def check_examples(serving: pipeline.Serving) -> None:
    """Runs each rule's own examples, each from an empty state. Raises ConfigError that names all that do not do what they should."""
    spec, mistakes = serving.spec, Mistakes(f"pipeline {serving.spec.pipeline.name}")
    for place, rule in enumerate(spec.rules):
        for kind, given, expected in (("hit", rule.hit, True), ("miss", rule.miss, False)):
            if given is None:
                continue
            example, at = example_of(given, spec), f"rules[{place}].{kind}"
            plan = pipeline.plan([segment_of([{**least_event(spec), **example.event}], key=spec.pipeline.key)], serving)
            if plan.rejects:
                mistakes.add(at, f"{rule.code}: the example is no event: {plan.rejects[0].path}: {plan.rejects[0].message}")
                continue
            measured_as, _, _ = measured(plan, [serving.state.new()], serving.shared.new(), serving)
            lookup = None if serving.lists is None else Lookup(plan, serving.lists.table(example.lists))
            hits = policy.evaluate(plan, example_features(measured_as, example.features), serving, lookup)
            if bool(serving.rules.hits_of(rule.code, hits)[0]) != expected:
                does = "misses" if expected else "hits"
                mistakes.add(at, f"{rule.code}: this example {does}; change it or `when = {rule.when!r}`")
    mistakes.raise_if_any()


def example_features(features: FeatureSet, given: Mapping[str, float]) -> FeatureSet:
    """Gives the features of one example's event with the values that the example states itself."""
    values = features.values.copy(order="F")
    for name, value in given.items():
        values[:, features.names.index(name)] = value
    return replace(features, values=values)


def _explainer(tier: Tier, words: Words) -> ModelReasons | None:
    """A linear model and trees with tables can say why; usual values are the means of the training data."""
    if tier.model is None:
        return None
    card = tier.model.card
    if not card.linear and card.trees_sha256 is None:
        return None
    names = card.scaler.names
    usual = [card.reference[name].mean if name in card.reference else mean for name, mean in zip(names, card.scaler.mean, strict=True)]
    return ModelReasons(card.labels[0], names, usual, words)


def _counterfactuals(
    spec: PipelineSpec, features: FeaturePlan, tiers: Sequence[Tier], scaler: Scaler | None, words: Words
) -> Counterfactuals | None:
    section, mistakes = spec.reasons, Mistakes(f"pipeline {spec.pipeline.name}")
    for name in section.monotone:
        if name not in features.place:
            mistakes.add(f"reasons.monotone.{name}", f"`{name}` is no feature{nearest(name, features.names)}")
    if section.monotone and not section.counterfactuals:
        mistakes.add("reasons.monotone", "is read for counterfactuals only; set counterfactuals = true, or remove it")
    if section.counterfactuals and any(tier.time_ms is not None for tier in tiers):
        mistakes.add("reasons.counterfactuals", "each is tried on the whole line, and a tier with time_ms is too slow to be asked twice")
    mistakes.raise_if_any()
    if not section.counterfactuals:
        return None
    live = [rule for rule in spec.rules if rule.mode == "live"]
    return Counterfactuals(section, live, features.definitions, tiers, features.places(scaler.names if scaler else ()), words)


def _verdict_fields(spec: PipelineSpec, features: FeaturePlan) -> dict[str, str]:
    wanted = spec.verdict.named(tuple(COLUMNS))
    unknown = [name for name in wanted.values() if name not in COLUMNS and name not in features.place]
    if unknown:
        known = ", ".join((*COLUMNS, *features.names))
        raise ConfigError(f"[verdict] fields: {', '.join(unknown)} is no field of a verdict and no feature", f"known are {known}")
    nameless = [name for name in wanted if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or keyword.iskeyword(name)]
    if nameless:
        raise ConfigError(f"[verdict] fields: {', '.join(nameless)} is no name", "take letters, digits and _, and no Python keyword")
    if not {"event_id", "decision_id"} & set(wanted.values()):
        raise ConfigError("[verdict] fields names no id", "a verdict needs event_id or decision_id to be joined")
    return wanted


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:12]
