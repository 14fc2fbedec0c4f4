"""`[prediction_cache]` and `[risk_cache]` of a pipeline file: scores that are used again, within minutes or within a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from streamapp.core.document import Mistakes
from streamapp.core.errors import ConfigError
from streamapp.core.features.profile import BATCH_RISK
from streamapp.core.velocity import duration_ms

if TYPE_CHECKING:
    from streamapp.core.spec import PipelineSpec


CUTS: tuple[Literal["approve", "block"], ...] = ("approve", "block")


class PredictionCacheSection(msgspec.Struct, frozen=True, kw_only=True):
    """The same text of the same user with the same features is scored once within `ttl`; the `most` last used scores are kept."""

    ttl: str = "300s"
    most: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000


class RiskCacheSection(msgspec.Struct, frozen=True, kw_only=True):
    """What batch scoring leaves behind: the highest probability of each user that was above `above`, for `ttl`, as `batch_risk`."""

    above: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.7
    ttl: str = "24h"


def check_caches(spec: PipelineSpec, mistakes: Mistakes) -> None:
    """Notes what is wrong with the caches of a pipeline: a score may be used again only where nothing but its key decides it."""
    for name in ("prediction_cache", "risk_cache"):
        section: PredictionCacheSection | RiskCacheSection | None = getattr(spec, name)
        if section is None:
            continue
        try:
            if duration_ms(section.ttl) <= 0:
                mistakes.add(f"{name}.ttl", 'must be above 0; write for example "300s"')
        except ConfigError as failure:
            mistakes.add(f"{name}.ttl", str(failure))
    if spec.risk_cache is not None and BATCH_RISK not in spec.features.profile:
        mistakes.add("risk_cache", f"nobody reads it; declare `{BATCH_RISK}` in [features.profile] or remove this table")
    if spec.prediction_cache is None:
        return
    if spec.velocity:
        mistakes.add("prediction_cache", "windows move with every event, so no score can be used again; remove this table or [velocity]")
    cuts = [tier.says(cut, spec.thresholds) for tier in spec.tiers for cut in CUTS]
    if "cost" in cuts:
        mistakes.add("prediction_cache", "routes by cost depend on the amount, which is not in its key; remove this table or name cuts")
    for place, tier in enumerate(spec.tiers):
        if tier.model is None:
            mistakes.add(
                "prediction_cache", f"tiers[{place}] {tier.name} is no model and may read what is not in its key; remove this table"
            )
    if not spec.tiers:
        mistakes.add("prediction_cache", "there is no tier whose scores could be kept; remove this table")
