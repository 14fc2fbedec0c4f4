"""From the `[[tiers]]` of a pipeline file and loaded models to the tiers that serve: their cuts, inputs, labels and plug-ins."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from streamapp.core.card import Card, Scaler
from streamapp.core.document import nearest
from streamapp.core.errors import ConfigError, ModelRejected
from streamapp.core.features.plan import FeaturePlan
from streamapp.core.formula import compile_formula
from streamapp.core.spec import PipelineSpec
from streamapp.core.tier_spec import ThresholdsSection, TierSpec
from streamapp.core.tiers import Call, Plugin, Tier, View, labels_of, strange_labels
from streamapp.ports import Model


def tiers_of(spec: PipelineSpec, models: Mapping[str, Model], features: FeaturePlan, types: Mapping[str, str]) -> tuple[Tier, ...]:
    """Takes the models by tier name (a tier without its model is left out) and the types of fields and features; gives the cascade.

    Raises ConfigError for what the pipeline file says wrongly, ModelRejected for a model that does not fit it.
    """
    cards = [models[one.name].card for one in spec.tiers if one.name in models]
    named_by_row = any(card.task != "binary" for card in cards)
    tiers: list[Tier] = []
    for place, one in enumerate(spec.tiers):
        if one.model is not None and one.name not in models:
            continue
        model = models.get(one.name)
        card = None if model is None else model.card
        (approve, approve_by_cost), (block, block_by_cost) = (_cut(one, cut, card, spec.thresholds) for cut in ("approve", "block"))
        _check_order(one, approve, block)
        own = None if card is None else _view(one, card, cards[0].scaler, features)
        tiers.append(
            Tier(
                one.name, model, approve, block, review_from=one.review, rows_max=one.rows_max, time_ms=one.time_ms,
                rows_per_call=one.rows_per_call, own=own, by_cost=(approve_by_cost, block_by_cost),
                base_rates=None if card is None else _base_rates(one, card, spec.thresholds.base_rate),
                formula=None if one.expression is None else compile_formula(one.expression, types, f"tiers[{place}].expression"),
                plugin=None if one.callable is None else _plugin(one, types, f"tiers[{place}]"),
                labels=None if card is None or not named_by_row else labels_of(card, one.labels),
            )
        )  # fmt: skip
    return tuple(tiers)


def _cut(tier: TierSpec, which: Any, card: Card | None, thresholds: ThresholdsSection) -> tuple[float | None, bool]:
    """Gives the number for all rows, None where a promise is not reachable or costs say it row by row; and whether they do."""
    said = tier.says(which, thresholds)
    if said == "card":
        promised: float | None = None if card is None else getattr(card, which).value
        return promised, False
    return (None if isinstance(said, str) else said), said == "cost"


def _base_rates(tier: TierSpec, card: Card, now: float | None) -> tuple[float, float] | None:
    if now is None:
        return None
    if card.base_rate is None or card.task != "binary":
        why = "the card says no base_rate" if card.task == "binary" else f"the model is {card.task}"
        raise ModelRejected(f"tier {tier.name}: {why}, so `thresholds.base_rate` cannot move it", "train a new version")
    return card.base_rate, now


def _check_order(tier: TierSpec, approve: float | None, block: float | None) -> None:
    if approve is not None and block is not None and approve > block:
        raise ModelRejected(
            f"tier {tier.name}: approve below {approve:g} lies above block from {block:g}", "set [thresholds] in the pipeline file"
        )
    if tier.review is not None and ((approve or 0.0) > tier.review or (block is not None and tier.review > block)):
        raise ModelRejected(
            f"tier {tier.name}: review from {tier.review:g} does not lie between approve and block", "set the tier's own approve and block"
        )


def _view(tier: TierSpec, card: Card, shared: Scaler, features: FeaturePlan) -> View | None:
    """None where the model takes the inputs of the first one; another vector or scale is prepared for the rows that reach it alone."""
    unknown = [name for name in card.scaler.names if name not in features.place]
    if unknown:
        raise ModelRejected(f"tier {tier.name} needs features this pipeline does not compute: {', '.join(unknown)}")
    strange = strange_labels(card, tier.labels)
    if strange is not None:
        raise ModelRejected(f"tier {tier.name}: {strange}", "correct the card's or the tier's labels")
    return None if card.scaler == shared else View(features.places(card.scaler.names), card.scaler)


def _plugin(tier: TierSpec, types: Mapping[str, str], at: str) -> Plugin:
    unknown = [name for name in tier.reads if name not in types]
    if unknown:
        raise ConfigError(f"{at}.reads: `{unknown[0]}` is no feature and no field that can be read{nearest(unknown[0], types)}")
    entry = str(tier.callable)
    reads = {name: types[name] in ("number", "boolean") for name in tier.reads}
    try:
        call = _call(entry)
    except Exception as failure:
        raise ConfigError(
            f"{at}.callable: {entry} cannot be loaded: {type(failure).__name__}: {failure}", "install the module or set PYTHONPATH"
        ) from failure
    if not callable(call):
        raise ConfigError(f"{at}.callable: {entry} is no callable", "name a function, or a class whose instances can be called")
    return Plugin(entry, str(tier.version), call, reads)


@cache
def _call(entry: str) -> Call:
    """Gives what "module:name" names; of a class one instance per process, so that it loads what it needs once, and before that."""
    module, _, name = entry.partition(":")
    found: Any = getattr(importlib.import_module(module), name)
    return found() if isinstance(found, type) else found  # type: ignore[no-any-return]
