"""A merged window against the card's reference: what moved, by how much, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec
import numpy as np

from streamapp.core import statistics as stat
from streamapp.core.card import Reference
from streamapp.core.events import FLAG_NAMES
from streamapp.core.partials import CONFIDENCE_BUCKETS, REJECT_NAMES, SCORE, Observations
from streamapp.core.route import ROUTE_NAMES

WindowKind = Literal["time", "count", "day"]

NOT_VISIBLE = (
    "Without labels this report sees the inputs and the scores only. Whether the same input now means something else (the relation of "
    "class to input), and with it precision, recall and the error of single slices, shows only once labels have matured."
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is called drift: the smallest effect worth an alarm, and `alpha`, how often chance may reach it in one window.

    `alpha` is shared out over the features tested (Bonferroni), and every limit is the larger of effect and chance.
    """

    psi_alarm: float = 0.2
    kl_alarm: float = 0.1
    ks_alarm: float = 0.1
    mean_alarm_std: float = 0.25  #  of the reference's standard deviation
    alpha: float = 0.001
    missing_alarm: float = 0.05  #   share; a reference that misses more is its own limit
    outlying_alarm: float = 0.01  #  share of values more than 3 reference deviations out


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How the figures were made, so that each can be recomputed from the record and the card."""

    bins: str = stat.RECIPE
    zero_share: float = stat.ZERO_SHARE
    psi: str = "sum((current - reference) * ln(current / reference))"
    kl: str = "sum(current * ln(current / reference)), nats"
    ks: str = "largest distance of the cumulative shares at the bin edges (a lower bound of the unbinned distance)"
    ks_p: str = "one-sample Kolmogorov distribution at round(n * m / (n + m)); an upper bound, as the distance is a lower one"
    z: str = "(mean - reference) / sqrt(std^2 / n + reference_std^2 / m)"
    limits: str = (
        "the threshold, or if larger what chance gives: psi (1/n + 1/m) * chi2(1 - alpha', bins - 1), more where bins expect under "
        "50 events; kl half of it; ks sqrt(ln(2/alpha')/2 * (1/n + 1/m)); z the normal quantile by the larger of the two spreads"
    )
    shares: str = "missing and outlying alarm when the lower end of their 95 % Wilson interval is above the limit"
    thresholds: Limits = Limits()
    alpha_each: float = 0.0  # alpha' = alpha / features tested


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature (or the score) of one window. Figures are absent where the card has no reference, or nothing was counted."""

    n: int
    mean: float
    std: float
    missing_share: float
    clipped_share: float
    outlying_share: float
    reference_n: int = 0
    bins: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    psi: float | None = None
    psi_limit: float | None = None
    kl: float | None = None
    kl_limit: float | None = None
    ks: float | None = None
    ks_limit: float | None = None
    ks_p: float | None = None
    mean_shift_z: float | None = None
    mean_shift_z_limit: float | None = None
    missing_limit: float | None = None
    drifted: tuple[str, ...] = ()  #  which of psi, kl, ks, mean
    quality: tuple[str, ...] = ()  #  which of missing, outlying


class Confidence(msgspec.Struct, frozen=True, kw_only=True):
    """How sure the model was: max(p, 1 - p) in buckets 0.05 wide from 0.5 to 1.0."""

    buckets: tuple[int, ...]
    mean: float | None  # from the buckets' middles


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: `time` and `day` are event time [start_ms, end_ms); `count` is the events that came in together."""

    kind: WindowKind
    start_ms: int
    end_ms: int
    n: int


class DriftReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="drift"):
    """The record on `<ns>.monitoring.v1`. A later `revision` of the same window and release replaces an earlier one."""

    pipeline: str
    release: str
    window: Window
    revision: int
    complete: bool  #              every source partition's event time has passed the window's end
    partitions: tuple[int, ...]  # that contributed
    alarm: bool
    windows_in_alarm: int  #       in a row, this one included
    features: dict[str, FeatureDrift]
    score: FeatureDrift
    confidence: Confidence
    routes: dict[str, int]
    decided_by: dict[str, int]
    flags: dict[str, int]
    rejects: dict[str, int]
    late: int
    overlapping: int  #            partials whose offsets overlap another's of this window: a crash may have counted rows twice
    recipe: Recipe
    not_visible: str = NOT_VISIBLE


def feature_drift(observed: Observations, name: str, limits: Limits, alpha: float) -> FeatureDrift:
    """Takes a merged window and a feature's name (or "score"); `alpha` is this feature's share of the chance of a false alarm."""
    layout, rows = observed.layout, observed.n
    place = layout.at[name]
    bins, (mean, std, n) = observed.bins(name), observed.moments(name)
    unknown, outlying = int(observed.of("unknown")[place]), int(observed.of("outlying")[place])
    # The score of an event that a rule decided is not missing: nobody asked the model.
    missing = unknown + int(observed.of("missing")[place]) if name != SCORE else 0
    clipped = int(observed.of("clipped")[place]) if name != SCORE else 0
    shares = FeatureDrift(
        n=n, mean=mean, std=std, missing_share=_share(missing, rows), clipped_share=_share(clipped, rows),
        outlying_share=_share(outlying, n),
    )  # fmt: skip
    reference = layout.references.get(name)
    if reference is None or not reference.n:
        return shares
    usual = stat.wilson_interval(reference.missing, reference.n + reference.missing)[1] if reference.missing else 0.0
    missing_limit = max(limits.missing_alarm, usual)
    quality = [
        what
        for what, hits, of, limit in (("missing", missing, rows, missing_limit), ("outlying", outlying, n, limits.outlying_alarm))
        if of and stat.wilson_interval(min(hits, of), of)[0] > limit
    ]
    measured = msgspec.structs.replace(
        shares, reference_n=reference.n, bins=tuple(bins.tolist()), edges=reference.edges, missing_limit=missing_limit,
        quality=tuple(quality),
    )  # fmt: skip
    return _against(measured, reference, limits, alpha) if n else measured


def _against(seen: FeatureDrift, reference: Reference, limits: Limits, alpha: float) -> FeatureDrift:
    n, m = seen.n, reference.n
    expected, actual = stat.shares(np.array(reference.counts)), stat.shares(np.array(seen.bins))
    psi, kl, ks = stat.psi(expected, actual), stat.kl(expected, actual), stat.ks_binned(expected, actual)
    psi_limit, kl_limit = stat.psi_limit(limits.psi_alarm, expected, n, m, alpha), stat.kl_limit(limits.kl_alarm, expected, n, m, alpha)
    ks_limit = stat.ks_limit(limits.ks_alarm, n, m, alpha)
    z = stat.mean_shift_z(seen.mean, seen.std, n, reference.mean, reference.std, m)
    error = math.sqrt(seen.std**2 / n + reference.std**2 / m)
    # A small window that happens to be uniform knows its own spread badly: chance is judged by the larger spread.
    chance = stat.z_limit(alpha) * math.sqrt(max(seen.std, reference.std) ** 2 / n + reference.std**2 / m)
    z_limit = max(chance, limits.mean_alarm_std * reference.std) / error if error else 0.0
    beyond = {"psi": psi > psi_limit, "kl": kl > kl_limit, "ks": ks > ks_limit, "mean": abs(z) > z_limit}
    return msgspec.structs.replace(
        seen, psi=psi, psi_limit=psi_limit, kl=kl, kl_limit=kl_limit, ks=ks, ks_limit=ks_limit, ks_p=stat.ks_p(ks, n, m),
        mean_shift_z=z if math.isfinite(z) else None, mean_shift_z_limit=z_limit,
        drifted=tuple(name for name, is_so in beyond.items() if is_so),
    )  # fmt: skip


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def drift_report(
    observed: Observations, limits: Limits, *, pipeline: str, release: str, kind: WindowKind, revision: int = 1, complete: bool = True,
    partitions: tuple[int, ...] = (), windows_in_alarm: int = 0, overlapping: int = 0,
) -> DriftReport:  # fmt: skip
    """Takes a merged window; gives its report. Pure: equal partials give an equal report. `windows_in_alarm` is that of the window before.

    A window alarms when any feature or the score drifted; the quality of inputs is reported beside it.
    """
    layout = observed.layout
    tested = sum(name in layout.references and layout.references[name].n > 0 for name in (*layout.features, SCORE))
    alpha = limits.alpha / max(1, tested)
    features = {name: feature_drift(observed, name, limits, alpha) for name in layout.features}
    score = feature_drift(observed, SCORE, limits, alpha)
    alarm = bool(score.drifted) or any(feature.drifted for feature in features.values())
    return DriftReport(
        pipeline=pipeline, release=release, window=Window(kind=kind, start_ms=observed.start_ms, end_ms=observed.end_ms, n=observed.n),
        revision=revision, complete=complete, partitions=partitions, alarm=alarm, windows_in_alarm=windows_in_alarm + 1 if alarm else 0,
        features=features, score=score, confidence=_confidence(observed), routes=named(ROUTE_NAMES, observed, "route"),
        decided_by=named(layout.deciders, observed, "decided_by"), flags=named(FLAG_NAMES.values(), observed, "flags"),
        rejects={code: count for code, count in named(REJECT_NAMES, observed, "rejects").items() if count},
        late=int(observed.of("late")[0]), overlapping=overlapping, recipe=Recipe(thresholds=limits, alpha_each=alpha),
    )  # fmt: skip


def named(names: Iterable[str], observed: Observations, group: str) -> dict[str, int]:
    """Gives one group of counts by name."""
    return dict(zip(names, observed.of(group).tolist(), strict=True))


def _confidence(observed: Observations) -> Confidence:
    buckets = observed.of("confidence")
    total = int(buckets.sum())
    middles = 0.5 + (np.arange(CONFIDENCE_BUCKETS) + 0.5) / (2 * CONFIDENCE_BUCKETS)
    return Confidence(buckets=tuple(buckets.tolist()), mean=float(buckets @ middles) / total if total else None)


def to_json(report: DriftReport) -> bytes:
    """Gives the record's bytes; a figure that is not finite is null."""
    return msgspec.json.encode(report)
