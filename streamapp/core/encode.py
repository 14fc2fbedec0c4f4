"""Outcomes to bytes, a column at a time: the verdict of schema verdict.v1, and the decision record that adds what training needs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from streamapp.core.events import FLAG_NAMES, Plan
from streamapp.core.features.catalogue import FeatureDef
from streamapp.core.json_columns import Part, numbers, picked, strings, whole_numbers, woven
from streamapp.core.outcome import Outcome
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.texts import Texts
from streamapp.core.weave import NamedRows
from streamapp.core.windows_index import CAREFUL_ROUNDS, hash_bytes, hexadecimal

_json = msgspec.json.Encoder().encode

Column = Callable[["VerdictEncoder", Outcome], Sequence[Part]]


class Versions(msgspec.Struct, frozen=True, gc=False):
    """Which version of each part decided; equal versions, state and event give an equal verdict."""

    release: str
    schema: str  #  of the events
    features: str
    rules: str
    models: dict[str, str]
    calibration: dict[str, str]
    thresholds: str
    arm: str | None = None


class VerdictEncoder:
    """Built once per Serving: one column per field, woven to rows, so that no Python runs per field and row."""

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
        self._deciders = list(map(_json, deciders))
        self._labels = [b"[]", _json([*labels[:1]])]
        self._versions = _json(versions)
        self._decision_key, self._entity_key = _key(pipeline.encode()), _key(entity_key)
        self.members = {source: name for name, source in fields.items()}  # what each column is called in the verdict
        self._names = [b'%b"%b":' % (b"," if at else b"{", _json(name)[1:-1]) for at, name in enumerate(fields)]
        place = {feature.name: at for at, feature in enumerate(features)}
        self._columns = [
            COLUMNS[name] if name in COLUMNS else _feature(place[name], features[place[name]].whole) for name in fields.values()
        ]
        self._features = NamedRows([feature.name for feature in features])

    def verdicts(self, outcome: Outcome) -> Texts:
        """Gives one JSON document per row, in plan order."""
        parts: list[Part] = []
        for name, column in zip(self._names, self._columns, strict=True):
            parts += name, *column(self, outcome)
        return woven(len(outcome.plan), [*parts, b"}"])

    def decisions(self, outcome: Outcome, verdicts: Texts) -> Texts:
        """Gives each verdict with the shadow rules that hit, the id of its schema where a frame said one, and its features by name.

        Where there is text, its sha256 is added (never the text).
        """
        if outcome.hits.shadow_codes:
            codes, hit = outcome.hits.shadow_codes, outcome.hits.shadow
            told = _where([[*compress(codes, row)] for row in hit.tolist()])
            verdicts = woven(len(verdicts), [Texts.of([verdict[:-1] for verdict in verdicts]), b',"shadow_rules":', told, b"}"])
        if outcome.plan.schema_id is not None:
            ids = [b"" if one < 0 else b',"schema_id":%d' % one for one in outcome.plan.schema_id.tolist()]
            verdicts = woven(len(verdicts), [Texts.of([verdict[:-1] for verdict in verdicts]), Texts.of(ids), b"}"])
        if self._text_field is None:
            return self._features.within(verdicts, 1, b',"features":', outcome.features.values, b"", Texts.nothing(len(verdicts)), b"}")
        texts = outcome.plan.encoded(self._text_field)
        digests = b"".join([sha256(text).digest() for text in texts]).hex().encode()
        hashes = Texts(np.frombuffer(digests, np.uint8), np.arange(len(texts) + 1) * 64)
        return self._features.within(verdicts, 1, b',"features":', outcome.features.values, b',"text_sha256":"', hashes, b'"}')

    def decision_ids(self, plan: Plan) -> Texts:
        """Gives a 128-bit hash of pipeline, tenant and event id per row: equal for every copy and redelivery of an event."""
        names = plan.identities()
        return hexadecimal(hash_bytes(names.data, names.start, self._decision_key))

    def entities(self, plan: Plan) -> Texts:
        """Gives the keyed 128-bit hash of the entity's id per row: joins verdicts of one entity without naming it."""
        return hexadecimal(plan.hashes(self._entity_field, self._entity_key, CAREFUL_ROUNDS))

    def versions(self, outcome: Outcome) -> bytes:
        """Gives the versions that decided, with that of the lists where there are any."""
        if outcome.lists is None:
            return self._versions
        return b'%b,"lists":"%b"}' % (self._versions[:-1], outcome.lists.encode())

    def labels(self, outcome: Outcome) -> Part:
        """Gives the labels of each row's tier; where all tiers have one positive class, that from a calibrated one half on."""
        if outcome.labels is not None:
            return list(map(_json, outcome.labels.tolist()))
        return picked(self._labels, outcome.probability >= 0.5)


def _key(secret: bytes) -> tuple[int, int]:
    low, high = struct.unpack("<QQ", blake2b(secret, digest_size=16).digest())
    return low, high


def _where(rows: Sequence[Sequence[Any]]) -> Part:
    """Gives the lists of those few rows that have something to say."""
    index, told = np.zeros(len(rows), np.int64), [b"[]"]
    for row, said in enumerate(rows):
        if said:
            index[row] = len(told)
            told.append(_json(said))
    return picked(told, index)


def _feature(place: int, whole: bool) -> Column:
    """Gives the column of one feature; a count is written as a whole number (features are finite, a prior may be none)."""

    def column(_: VerdictEncoder, outcome: Outcome) -> Sequence[Part]:
        values = outcome.features.values[:, place]
        if whole:
            exact = values.astype(np.int64)
            if (exact == values).all():
                return (whole_numbers(exact),)
        return (numbers(values),)

    return column


@lru_cache(maxsize=4096)
def _read_from(topic: str, partition: int) -> bytes:
    return b'{"topic":%b,"partition":%d,"offset":' % (_json(topic), partition)


def _source(plan: Plan) -> Sequence[Part]:
    """Gives where each event was read."""
    heads = [_read_from(segment.topic, segment.partition) for segment in plan.segments]
    return picked(heads, plan.segment), whole_numbers(plan.offsets()), b"}"


_ROUTES = list(map(_json, ROUTE_NAMES))
_FLAGS = [_json([name for bit, name in FLAG_NAMES.items() if bits & bit]) for bits in range(2 * max(FLAG_NAMES))]

#: Every field a verdict can have; `[verdict] fields` of the pipeline file picks from these names.
COLUMNS: Mapping[str, Column] = {
    "decision_id": lambda encoder, outcome: (b'"', encoder.decision_ids(outcome.plan), b'"'),
    "event_id": lambda _, outcome: (strings(outcome.plan.event_id),),
    "tenant": lambda _, outcome: (strings(outcome.plan.tenant) if any(outcome.plan.tenant) else b'""',),
    "pipeline": lambda encoder, _: (_json(encoder._pipeline),),
    "entity": lambda encoder, outcome: (b'"', encoder.entities(outcome.plan), b'"'),
    "event_time": lambda _, outcome: (whole_numbers(outcome.plan.event_time),),
    "received_at": lambda _, outcome: (whole_numbers(outcome.plan.received_at),),
    "decided_at": lambda _, outcome: (b"%d" % outcome.decided_at,),
    "verdict": lambda _, outcome: (picked(_ROUTES, outcome.route),),
    "decided_by": lambda encoder, outcome: (picked(encoder._deciders, outcome.decided_by),),
    "score": lambda _, outcome: (numbers(outcome.score),),
    "probability": lambda _, outcome: (numbers(outcome.probability),),
    "labels": lambda encoder, outcome: (encoder.labels(outcome),),
    "threshold": lambda _, outcome: (numbers(outcome.threshold),),
    "reasons": lambda _, outcome: (_where(outcome.reasons),),
    "stages": lambda _, outcome: (_json(outcome.stage_ms),),
    "versions": lambda encoder, outcome: (encoder.versions(outcome),),
    "degraded": lambda _, outcome: (_json(outcome.degraded),),
    "flags": lambda _, outcome: (picked(_FLAGS, outcome.plan.flags),),
    "source": lambda _, outcome: _source(outcome.plan),
}
