"""Models that are not there: a directory that is none, and tiers that nobody answers for, told before anything is decided without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.config import Settings, models_directory
from streamapp.core.document import nearest
from streamapp.core.errors import ConfigError

if TYPE_CHECKING:
    from streamapp.core.tier_spec import TierSpec
    from streamapp.pipeline import Serving


def check_directory(settings: Settings) -> None:
    """Raises ConfigError where the models directory that was named is none; an empty one is a registry without models."""
    if settings.models and not Path(settings.models).is_dir():
        said = settings.origins.get("models", "models")
        raise ConfigError(
            f"{settings.models} ({said}) is no directory",
            "name the one that holds a directory per model; an empty one will do: rules decide",
        )


def absent(serving: Serving) -> list[TierSpec]:
    """Gives the tiers of the pipeline file whose model is not there."""
    there = {tier.name for tier in serving.tiers}
    return [tier for tier in serving.spec.tiers if tier.name not in there]


def without(settings: Settings, serving: Serving) -> list[str]:
    """Gives a sentence for each tier without a model, with the nearest name no tier has; none of an empty registry: rules decide."""
    directory = models_directory(settings)
    known = sorted(one.name for one in directory.iterdir() if one.is_dir() and one.name[0] != ".") if directory.is_dir() else []
    if not known and not serving.tiers:
        return []
    others = set(known).difference(tier.model or "" for tier in serving.spec.tiers)
    return [
        f"tier {tier.name} is passed over: there is no model `{tier.model}` in {directory}{nearest(tier.model or '', others)}"
        for tier in absent(serving)
    ]
