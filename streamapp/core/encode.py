"""Outcomes to bytes, a column at a time: the verdict of schema verdict.v1, and the decision record that adds what training needs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.events import FLAG_NAMES, Plan
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.texts import Texts
from streamapp.core.weave import NamedRows
from streamapp.core.windows_index import CAREFUL_ROUNDS, hash_names, hexadecimal

_json = msgspec.json.Encoder().encode
_EMPTY = msgspec.Raw(b"[]")

Column = Callable[["VerdictEncoder", Outcome], Iterable[Any]]


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the event was read."""

    topic: str
    partition: int
    offset: int


class Versions(msgspec.Struct, frozen=True, gc=False):
    """Which version of each part decided; equal versions, state and event give an equal verdict."""

    release: str
    features: str
    rules: str
    models: dict[str, str]
    calibration: dict[str, str]
    thresholds: str
    arm: str | None = None


class VerdictEncoder:
    """Built once per Serving: one column per field, and `map` over the columns, so that no Python runs per field and row."""

    def __init__(
        self,
        pipeline: str,
        entity_field: str,
        text_field: str | None,
        fields: Mapping[str, str],
        versions: Versions,
        deciders: Sequence[str],
        labels: Sequence[str],
        features: Sequence[FeatureDef],
        entity_key: bytes,
    ) -> None:
        """`fields` are the verdict's members in order: name -> name in COLUMNS, or of a feature.

        `entity_key` is the secret (16 to 64 bytes) that entity ids are hashed under.
        """
        self._pipeline, self._entity_field, self._text_field = pipeline, entity_field, text_field
        self._deciders = np.array(deciders, object)
        self._labels = (_EMPTY, msgspec.Raw(_json([labels[0]]))) if labels else (_EMPTY, _EMPTY)
        self._versions = msgspec.Raw(_json(versions))
        self._decision_key, self._entity_key = _key(pipeline.encode()), _key(entity_key)
        self.members = {source: name for name, source in fields.items()}  # what each column is called in the verdict
        self._row = msgspec.defstruct("Verdict", [(name, Any) for name in fields], gc=False, frozen=True)
        place = {feature.name: at for at, feature in enumerate(features)}
        self._columns = [
            COLUMNS[name] if name in COLUMNS else _feature(place[name], features[place[name]].whole) for name in fields.values()
        ]
        self._features = NamedRows([feature.name for feature in features])

    def verdicts(self, outcome: Outcome) -> Texts:
        """Gives one JSON document per row, in plan order."""
        columns = [column(self, outcome) for column in self._columns]
        return Texts.of(list(map(_json, map(self._row, *columns))))

    def decisions(self, outcome: Outcome, verdicts: Texts) -> Texts:
        """Gives each verdict with the shadow rules that hit, its features by name and, where there is text, its sha256 (never the text)."""
        if outcome.hits.shadow_codes:
            codes = np.array(outcome.hits.shadow_codes, object)
            told = [
                b'%b,"shadow_rules":%b}' % (verdict[:-1], _json(codes[hit].tolist()))
                for verdict, hit in zip(verdicts, outcome.hits.shadow, strict=True)
            ]
            verdicts = Texts.of(told)
        if self._text_field is None:
            return self._features.within(verdicts, 1, b',"features":', outcome.features.values, b"", Texts.nothing(len(verdicts)), b"}")
        texts = outcome.plan.column(self._text_field)
        digests = b"".join([sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]).hex().encode()
        hashes = Texts(np.frombuffer(digests, np.uint8), np.arange(len(texts) + 1) * 64)
        return self._features.within(verdicts, 1, b',"features":', outcome.features.values, b',"text_sha256":"', hashes, b'"}')

    def decision_ids(self, plan: Plan) -> list[str]:
        """Gives a 128-bit hash of pipeline, tenant and event id per row: equal for every copy and redelivery of an event."""
        names = [f"{tenant}\0{event_id}" for tenant, event_id in zip(plan.tenant, plan.event_id, strict=True)]
        return hexadecimal(hash_names(names, self._decision_key))

    def entities(self, plan: Plan) -> list[str]:
        """Gives the keyed 128-bit hash of the entity's id per row: joins verdicts of one entity without naming it."""
        return hexadecimal(hash_names([*map(str, plan.column(self._entity_field))], self._entity_key, CAREFUL_ROUNDS))

    def versions(self, outcome: Outcome) -> msgspec.Raw:
        """Gives the versions that decided, with that of the lists where there are any."""
        if outcome.lists is None:
            return self._versions
        return msgspec.Raw(b'%b,"lists":"%b"}' % (bytes(self._versions)[:-1], outcome.lists.encode()))

    def labels(self, outcome: Outcome) -> Iterable[Any]:
        """Gives the labels of each row's tier; where all tiers have one positive class, that from a calibrated one half on."""
        if outcome.labels is not None:
            return outcome.labels.tolist()  # type: ignore[no-any-return]
        return [self._labels[sure] for sure in (outcome.probability >= 0.5).tolist()]


def _key(secret: bytes) -> tuple[int, int]:
    low, high = struct.unpack("<QQ", blake2b(secret, digest_size=16).digest())
    return low, high


@lru_cache(maxsize=64)
def _flag_list(bits: int) -> msgspec.Raw:
    return msgspec.Raw(_json([name for bit, name in FLAG_NAMES.items() if bits & bit]))


def _numbers(values: npt.NDArray[np.float64]) -> list[float | None]:
    """NaN is null in JSON."""
    numbers: list[float | None] = values.tolist()
    for row in np.flatnonzero(np.isnan(values)).tolist():
        numbers[row] = None
    return numbers


def _feature(place: int, whole: bool) -> Column:
    """Gives the column of one feature; a count is written as a whole number (features are finite, a prior may be none)."""

    def column(_: VerdictEncoder, outcome: Outcome) -> Iterable[Any]:
        values = outcome.features.values[:, place]
        if whole:
            exact = values.astype(np.int64)
            if (exact == values).all():
                return exact.tolist()  # type: ignore[no-any-return]
        return values.tolist()  # type: ignore[no-any-return]

    return column


def _sources(plan: Plan) -> Iterable[Source]:
    sources: list[Source] = []
    for place, segment in enumerate(plan.segments):
        offsets = segment.offsets[plan.index[plan.segment == place]].tolist()
        sources.extend(map(Source, repeat(segment.topic), repeat(segment.partition), offsets))
    return sources


#: Every field a verdict can have; `[verdict] fields` of the pipeline file picks from these names.
COLUMNS: Mapping[str, Column] = {
    "decision_id": lambda encoder, outcome: encoder.decision_ids(outcome.plan),
    "event_id": lambda _, outcome: outcome.plan.event_id,
    "tenant": lambda _, outcome: outcome.plan.tenant,
    "pipeline": lambda encoder, _: repeat(encoder._pipeline),
    "entity": lambda encoder, outcome: encoder.entities(outcome.plan),
    "event_time": lambda _, outcome: outcome.plan.event_time.tolist(),
    "received_at": lambda _, outcome: outcome.plan.received_at.tolist(),
    "decided_at": lambda _, outcome: repeat(outcome.decided_at),
    "verdict": lambda _, outcome: np.array(ROUTE_NAMES, object)[outcome.route].tolist(),
    "decided_by": lambda encoder, outcome: encoder._deciders[outcome.decided_by].tolist(),
    "score": lambda _, outcome: _numbers(outcome.score),
    "probability": lambda _, outcome: _numbers(outcome.probability),
    "labels": lambda encoder, outcome: encoder.labels(outcome),
    "threshold": lambda _, outcome: _numbers(outcome.threshold),
    "reasons": lambda _, outcome: outcome.reasons,
    "stages": lambda _, outcome: repeat(msgspec.Raw(_json(outcome.stage_ms))),
    "versions": lambda encoder, outcome: repeat(encoder.versions(outcome)),
    "degraded": lambda _, outcome: repeat(msgspec.Raw(_json(outcome.degraded))),
    "flags": lambda _, outcome: map(_flag_list, outcome.plan.flags.tolist()),
    "source": lambda _, outcome: _sources(outcome.plan),
}
