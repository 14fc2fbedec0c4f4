"""One event through the line, with everything that is computed on the way kept and named."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from streamapp import pipeline, policy
from streamapp.core.deadletter import describe
from streamapp.core.errors import InvariantBroken
from streamapp.core.events import FLAG_NAMES, Plan, Segment
from streamapp.core.features import FeatureSet
from streamapp.core.fold import fold
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.text import clean, text_column
from streamapp.core.tokens import tokens
from streamapp.core.vectorise import Contributions, Inputs

_NAME = re.compile(r"[A-Za-z_]\w*")


def trace(
    value: bytes | None,
    key: bytes | None,
    serving: pipeline.Serving,
    now_ms: int,
    clock: Callable[[], float],
    top: int = 8,
    reading: Callable[[Plan], pipeline.Read] = lambda plan: pipeline.Read(),
) -> dict[str, Any]:
    """Takes one record; gives its stages by name, JSON-ready: event, text, features, rules, models, verdict; or event and dead_letter.

    The verdict is the one the line gives: the same `plan` and `decide` made it. `top` tokens are named on either side; `reading`
    brings what is known beside the event.
    """
    one = np.zeros(1, np.int64)
    segment = Segment("-", 0, 0, one, one + now_ms, [key], [value], [()])
    plan = pipeline.plan([segment], serving)
    if plan.rejects:
        return {"event": {"bytes": len(value or b"")}, "dead_letter": describe(plan.rejects[0], segment)}
    outcome = pipeline.decide(plan, reading(plan), [serving.state.new()], serving, now_ms, clock)
    features = outcome.features
    inputs = policy.vectorise(features, serving.features.read_texts(plan).ngrams, serving)
    flags = [name for bit, name in FLAG_NAMES.items() if int(plan.flags[0]) & bit]
    return {
        "event": {
            "bytes": len(value or b""),
            "event_id": plan.event_id[0],
            "event_time": int(plan.event_time[0]),
            "flags": flags,
            "fields": {name: _plain(plan.column(name)[0]) for name in serving.spec.event.fields},
        },
        "text": _text(plan.column(serving.spec.features.text.field)[0]) if serving.spec.features.text else None,
        "features": _features(features, serving),
        "rules": _rules(outcome.hits.hit[0].tolist(), features, serving),
        "models": [
            _model(place, inputs, _as_received(plan, serving), serving, top)
            for place, tier in enumerate(serving.tiers)
            if tier.model is not None
        ],
        "stages_ms": outcome.stage_ms,
        "verdict": msgspec.json.decode(serving.encoder.verdicts(outcome)[0]),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):  # a field that is kept as it came
        return msgspec.json.decode(value) if bytes(value) else None
    return None if value is msgspec.UNSET else msgspec.to_builtins(value)


def _as_received(plan: Any, serving: pipeline.Serving) -> str | None:
    return None if serving.spec.ngrams is None else str(plan.column(serving.spec.ngrams.field)[0])


def _text(received: str) -> dict[str, Any]:
    cleaned = clean(received)
    return {
        "received": received,
        "cleaned": cleaned,
        "folded": fold(cleaned),
        "changed_share": float(text_column([received]).changed_share[0]),
    }


def _features(features: FeatureSet, serving: pipeline.Serving) -> dict[str, dict[str, Any]]:
    references = serving.models[0].card.reference if serving.models else {}
    numeric = {name for model in serving.models for name in model.card.scaler.names}
    return {
        name: {
            "value": float(features.values[0, place]),
            "usual": references[name].mean if name in references else None,
            "missing": bool(features.missing[place]),
            "clipped": bool(features.clipped[place]),
            "enters_model": name in numeric,
        }
        for place, name in enumerate(features.names)
    }


def _rules(hits: list[bool], features: FeatureSet, serving: pipeline.Serving) -> list[dict[str, Any]]:
    live = [rule for rule in serving.spec.rules if rule.mode == "live"]
    return [
        {
            "code": rule.code,
            "when": rule.when,
            "hit": hit,
            "route": rule.route,
            "decides": rule.decides,
            "values": {name: float(features.column(name)[0]) for name in _NAME.findall(rule.when) if name in features.names},
        }
        for rule, hit in zip(live, hits, strict=True)
    ]


def _model(place: int, inputs: Inputs, text: str | None, serving: pipeline.Serving, top: int) -> dict[str, Any]:
    tier = serving.tiers[place]
    if tier.model is None:
        raise InvariantBroken(f"tier {tier.name} is an expression and has no model to trace")
    card, calibration, inputs = tier.model.card, tier.model.calibration, tier.inputs(inputs, np.zeros(1, np.intp))
    margin = float(tier.model.logits(inputs)[0, 0])
    found: dict[str, Any] = {
        "tier": tier.name,
        "model": f"{card.name}/{card.version}",
        "margin": margin,
        "calibration": calibration.method,
        "approve_below": tier.approve_below,
        "block_from": tier.block_from,
    }
    if serving.explainers[place] is not None:
        shares = tier.model.contributions(inputs)
        found["numeric"] = dict(zip(card.scaler.names, shares.numeric[0].tolist(), strict=True))
        found["ngrams"] = float(shares.ngram.sum())
        found["intercept"] = margin - found["ngrams"] - float(shares.numeric.sum())
        found["tokens"] = _tokens(shares, inputs, text, serving, top)
    return found


def _tokens(
    shares: Contributions, inputs: Inputs, text: str | None, serving: pipeline.Serving, top: int
) -> dict[str, list[dict[str, Any]]]:
    """Names the n-grams with the largest shares on either side; several n-grams may share a bucket and are told together."""
    wanted = serving.spec.ngrams
    if inputs.ngrams is None or wanted is None or text is None:
        return {"for": [], "against": []}
    names: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for bucket, _, name in tokens(text, wanted.word, wanted.char, wanted.buckets, wanted.seed):
        names[bucket][name] = None
    order = np.argsort(-shares.ngram, kind="stable").tolist()

    def told(rows: list[int]) -> list[dict[str, Any]]:
        return [{"token": list(names[int(inputs.ngrams.bucket[row])]), "weight": float(shares.ngram[row])} for row in rows]  # type: ignore[union-attr]

    return {
        "for": told([row for row in order[:top] if shares.ngram[row] > 0]),
        "against": told([row for row in order[::-1][:top] if shares.ngram[row] < 0]),
    }


def route_of(traced: dict[str, Any]) -> str:
    """Gives "approve", "review", "block" or "dead_letter"."""
    return "dead_letter" if "dead_letter" in traced else str(traced["verdict"].get("verdict", ROUTE_NAMES[1]))
