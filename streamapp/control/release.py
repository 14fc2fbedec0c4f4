"""From a pipeline file and a models directory to one frozen Serving: loaded beside what serves now, checked, then one value to swap in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from streamapp import pipeline
from streamapp.core.card import Card
from streamapp.core.cascade import Tier
from streamapp.core.decode import Decoder
from streamapp.core.encode import COLUMNS, VerdictEncoder, Versions
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.events import Segment
from streamapp.core.explain import ModelReasons
from streamapp.core.features.plan import FeaturePlan
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.rules import compile_rules
from streamapp.core.spec import PipelineSpec
from streamapp.core.vectorise import Inputs, scale
from streamapp.ports import Model


class LoadModel(Protocol):
    """How a model version is read and checked (adapters.models.load_model)."""

    def __call__(
        self, directory: Path, *, feature_spec: str | None, vectorise: Callable[[Card, list[dict[str, Any]]], Inputs] | None
    ) -> Model: ...


def load_serving(
    spec: PipelineSpec, models: Path, entity_key: bytes, load_model: LoadModel, latest_version: Callable[[Path, str], str]
) -> pipeline.Serving:
    """Gives the Serving of `spec` with its tiers' models, warmed up and smoke-tested; an empty registry is valid: rules decide.

    Raises ModelRejected or ConfigError; what serves meanwhile is not touched.
    """
    bare = assemble(spec, {}, entity_key)
    check_examples(bare)
    loaded: dict[str, Model] = {}
    for tier in spec.tiers:
        if tier.version is None and not (models / tier.model).is_dir():
            continue
        directory = models / tier.model / (tier.version or latest_version(models, tier.model))
        loaded[tier.name] = load_model(
            directory, feature_spec=bare.features.hash, vectorise=lambda card, events: inputs_of(bare, card, events)
        )
    serving = assemble(spec, loaded, entity_key)
    rehearse(serving)
    return serving


def rehearse(serving: pipeline.Serving) -> None:
    """Runs the whole line over the examples of rules and cards, so that no event waits for a kernel to compile or a cache to fill."""
    examples = [example for rule in serving.spec.rules for example in (rule.hit, rule.miss) if example is not None]
    examples += [smoke.event for tier in serving.tiers for smoke in tier.model.card.smoke]
    least = _least_event(serving.spec)
    odd = {name: "é & 1A0A" for name, field in serving.spec.event.fields.items() if field.type == "text"}
    events = [{**least, **example} for example in (*examples, odd, {"event_time": "2026-01-01T00:00:00Z"})]
    outcome = pipeline.decide(pipeline.plan([segment_of(events)], serving), pipeline.Read(), serving, 0, lambda: 0.0)
    serving.encoder.decisions(outcome, serving.encoder.verdicts(outcome))


def assemble(spec: PipelineSpec, models: Mapping[str, Model], entity_key: bytes) -> pipeline.Serving:
    """Takes the models by tier name (a tier without one is left out); gives the frozen bundle. Raises ConfigError, ModelRejected."""
    features = FeaturePlan(spec)
    rules = compile_rules(spec.rules, {**spec.field_types(), **dict.fromkeys(features.names, "number")})
    tiers = tuple(_tier(spec, name.name, models[name.name]) for name in spec.tiers if name.name in models)
    _check_tiers(tiers, features)
    cards = [tier.model.card for tier in tiers]
    scaler = cards[0].scaler if cards else None
    deciders = (pipeline.RULE, *(tier.name for tier in tiers), pipeline.DEFAULT)
    cuts = {tier.name: [tier.approve_below, tier.block_from] for tier in tiers}
    versions = Versions(
        release=_digest([spec, features.hash, rules.version, [(card.name, card.version, card.onnx_sha256) for card in cards], cuts]),
        features=features.hash[:12],
        rules=rules.version[:12],
        models={tier.name: f"{tier.model.card.name}/{tier.model.card.version}" for tier in tiers},
        calibration={tier.name: tier.model.card.calibration_sha256[:12] for tier in tiers},
        thresholds=_digest(cuts),
    )
    encoder = VerdictEncoder(
        pipeline=spec.pipeline.name,
        entity_field=spec.pipeline.key,
        text_field=spec.features.text.field if spec.features.text else None,
        fields=_verdict_fields(spec),
        versions=versions,
        deciders=deciders,
        labels=cards[-1].labels if cards else (),
        feature_names=features.names,
        entity_key=entity_key,
    )
    return pipeline.Serving(
        release=versions.release,
        spec=spec,
        decoder=Decoder(spec),
        features=features,
        rules=rules,
        tiers=tiers,
        explainers=tuple(_explainer(tier) for tier in tiers),
        deciders=deciders,
        default_route=ROUTE_NAMES.index(spec.thresholds.default_route),
        encoder=encoder,
        numeric=features.places(scaler.names if scaler else ()),
    )


def inputs_of(serving: pipeline.Serving, card: Card, events: Sequence[Mapping[str, Any]]) -> Inputs:
    """Gives the model inputs of example events, the way the line makes them. Raises ModelRejected for an example that is no event."""
    plan = pipeline.plan([segment_of(events)], serving)
    if plan.rejects:
        raise ModelRejected(f"a smoke example is no event of this pipeline: {plan.rejects[0].path}: {plan.rejects[0].message}")
    features, ngrams = serving.features.measure(plan, {})
    return Inputs(scale(features.values[:, serving.features.places(card.scaler.names)], card.scaler), ngrams)


def check_examples(serving: pipeline.Serving) -> None:
    """Runs each rule's own examples. Raises ConfigError when one that should hit misses, or the other way round."""
    for place, rule in enumerate(serving.spec.rules):
        for name, example, expected in (("hit", rule.hit, True), ("miss", rule.miss, False)):
            if example is None:
                continue
            plan = pipeline.plan([segment_of([{**_least_event(serving.spec), **example}])], serving)
            if plan.rejects:
                wrong = plan.rejects[0]
                raise ConfigError(f"rules[{place}] {rule.code}: the {name} example is no event: {wrong.path}: {wrong.message}")
            outcome = pipeline.decide(plan, pipeline.Read(), serving, 0, lambda: 0.0)
            if bool(serving.rules.hits_of(rule.code, outcome.hits)[0]) != expected:
                does = "misses" if expected else "hits"
                raise ConfigError(f"rules[{place}] {rule.code}: its {name} example {does}", f"change the example or `when = {rule.when!r}`")


def segment_of(events: Sequence[Mapping[str, Any]], topic: str = "examples") -> Segment:
    """Gives events as the records of one partition, all of time 0."""
    n = len(events)
    values = [msgspec.json.encode(event) for event in events]
    return Segment(topic, 0, 0, np.arange(n, dtype=np.int64), np.zeros(n, np.int64), [None] * n, values, [()] * n)


def _tier(spec: PipelineSpec, name: str, model: Model) -> Tier:
    card, cuts = model.card, spec.thresholds
    approve = card.approve.value if cuts.approve == "card" else cuts.approve
    block = card.block.value if cuts.block == "card" else cuts.block
    if approve is not None and block is not None and approve > block:
        raise ModelRejected(
            f"tier {name}: approve below {approve:g} lies above block from {block:g}", "set [thresholds] in the pipeline file"
        )
    return Tier(name, model, approve, block)


def _check_tiers(tiers: Sequence[Tier], features: FeaturePlan) -> None:
    for tier in tiers:
        card = tier.model.card
        unknown = [name for name in card.scaler.names if name not in features.place]
        if unknown:
            raise ModelRejected(f"tier {tier.name} needs features this pipeline does not compute: {', '.join(unknown)}")
        if card.task != "binary":
            raise ModelRejected(f"tier {tier.name}: task {card.task} cannot be routed by one probability", "serve a binary model")
        if card.scaler != tiers[0].model.card.scaler:
            raise ModelRejected(
                f"tier {tier.name} scales its inputs differently from tier {tiers[0].name}", "train both on one feature vector"
            )


def _explainer(tier: Tier) -> ModelReasons | None:
    card = tier.model.card
    if not card.linear:
        return None
    return ModelReasons(card.labels[0], card.scaler.names, [name.replace("_", " ") for name in card.scaler.names], card.scaler.mean)


def _verdict_fields(spec: PipelineSpec) -> tuple[str, ...]:
    wanted = spec.verdict.fields
    if wanted == "all":
        return tuple(COLUMNS)
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        raise ConfigError(f"[verdict] fields: {', '.join(unknown)} is no field of a verdict", f"known are {', '.join(COLUMNS)}")
    if "event_id" not in wanted and "decision_id" not in wanted:
        raise ConfigError("[verdict] fields names no id", "a verdict needs event_id or decision_id to be joined")
    return tuple(wanted)


def _least_event(spec: PipelineSpec) -> dict[str, Any]:
    """The smallest event that is valid: examples name only the fields that matter to their rule."""
    fills: dict[str, Any] = {
        "id": "example",
        "text": "example",
        "string": "example",
        "json": {},
        "number": 1,
        "integer": 1,
        "boolean": False,
    }
    return {name: fills[field.type] for name, field in spec.event.fields.items() if field.required}


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:12]
