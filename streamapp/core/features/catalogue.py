"""What a feature is, and what is derived from the list of all of them: the specification's hash and the catalogue page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson


@dataclass(slots=True, frozen=True, kw_only=True)
class FeatureDef:
    """One feature column; values outside [low, high] are clipped, missing ones take the default."""

    name: str
    version: int  #        raised whenever the same event may give another value
    dtype: Literal["float64"] = "float64"
    description: str
    owner: str = "trust-and-safety"
    created_at: str  #     day of the first version
    tags: tuple[str, ...]
    default: float = 0.0
    low: float
    high: float
    whole: bool = False  # a count: written without a fraction


def feature_spec_hash(features: Iterable[FeatureDef], params: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Takes the features in order, the pipeline's parameters (JSON-like) and the versions of cleaning, folding and n-grams.

    Gives 64 hex digits. Law: equal inputs give equal hashes on every machine; names, versions, bounds and order count, prose does not.
    """
    content = {
        "features": [[f.name, f.version, f.dtype, f.default, f.low, f.high] for f in features],
        "params": params,
        "versions": versions,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def markdown(features: Iterable[FeatureDef]) -> str:
    """Gives the catalogue page; the file under docs/ is this text, and a test compares them."""
    lines = [
        "# Feature catalogue",
        "",
        "Generated from the definitions in `streamapp/core/features`; do not edit. Every feature is a float64 column of its name.",
        "",
        "| Name | Version | Type | Description | Default | Low | High | Owner | Created | Tags |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines.extend(
        f"| `{f.name}` | {f.version} | {f.dtype} | {f.description} | {f.default:g} | {f.low:g} | {f.high:g}"
        f" | {f.owner} | {f.created_at} | {', '.join(f.tags)} |"
        for f in features
    )
    return "\n".join(lines) + "\n"
