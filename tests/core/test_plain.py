"""Plain JSON by the kernel: whatever the bytes, it gives what the decoder's other way gives, odd rows among them looked at closely."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from streamapp.config import load_pipeline
from streamapp.core import decode
from streamapp.core.decode import Decoder
from streamapp.core.events import Plan, Segment
from streamapp.core.spec import FieldSpec, PipelineSpec

_PAYMENTS = load_pipeline("payments")
_MORE = {
    "count": FieldSpec(type="integer", minimum=-5, maximum=1000),
    "share": FieldSpec(type="number"),
    "online": FieldSpec(type="boolean", default=True),
    "note": FieldSpec(type="string", max_length=6),
}
PAYMENTS = msgspec.structs.replace(
    _PAYMENTS, event=msgspec.structs.replace(_PAYMENTS.event, max_bytes=600, fields=_PAYMENTS.event.fields | _MORE)
)
SECONDS = load_pipeline("reference")
MESSAGES = load_pipeline("messages")
GOOD: dict[str, Any] = {
    "event_id": "e1", "event_time": 1_767_225_600_123, "customer_id": "c1", "card_id": "k1", "terminal_id": "t1", "amount": 12.5,
}  # fmt: skip
SAID: dict[str, Any] = {"event_id": "e1", "event_time": 1_767_225_600_123, "user_id": "c1", "text": "Are you there?"}
LESS: dict[str, Any] = {"event_id": "e1", "user_id": "c1", "amount": 12.5, "ts": 1_750_000_000.005}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the kernel read micro-batches of one row as well, and take part where all rows are odd."""
    monkeypatch.setattr(decode, "PLAIN_ROWS_MIN", 1)
    monkeypatch.setattr(decode, "ODD_SHARE_MAX", 1.0)


def deciders(spec: PipelineSpec) -> tuple[Decoder, Decoder]:
    """Gives a decoder, and one that has never heard of plain JSON."""
    both, slow = Decoder(spec), Decoder(spec)
    slow._plain = None
    return both, slow


DECODERS = {id(spec): deciders(spec) for spec in (PAYMENTS, SECONDS, MESSAGES)}


def segments(values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> list[Segment]:
    """Gives records as two partitions' segments."""
    half, n = len(values) // 2, len(values)
    return [
        Segment("t", place, 1, np.arange(low, high), np.full(high - low, 1_700_000_000_123), keys[low:high], values[low:high], [()] * n)
        for place, (low, high) in enumerate(((0, half), (half, n)))
    ]


def said(plan: Plan, spec: PipelineSpec) -> dict[str, Any]:
    """Gives everything a plan says, as plain Python."""
    fields = ["event_id", "tenant", *spec.event.fields]
    numbers = [name for name, one in spec.event.fields.items() if one.type in ("number", "integer")]
    names = [name for name, one in spec.event.fields.items() if one.type in ("id", "string", "text")]
    texts = [name for name, one in spec.event.fields.items() if one.type == "text"]
    arrays = (plan.segment, plan.index, plan.event_time, plan.received_at, plan.flags, plan.offsets())
    return {
        "events": [msgspec.structs.asdict(event) for event in plan.events],
        "ids": [*plan.event_id], "tenants": plan.tenant, "identities": [*plan.identities()], "rejects": plan.rejects,
        "columns": {name: plan.column(name) for name in fields},
        "types": {name: [type(value) for value in plan.column(name)] for name in fields},
        "arrays": [(array.dtype, array.tolist()) for array in arrays],
        "numbers": {name: [repr(value) for value in plan.numbers(name).tolist()] for name in numbers},
        "hashes": {name: plan.hashes(name).tolist() for name in names},
        "texts": {name: [array.tolist() for array in dataclasses.astuple(plan.text(name))] for name in texts},
        "encoded": {name: [*plan.encoded(name)] for name in texts},
    }  # fmt: skip


def agree(values: Sequence[bytes | None], spec: PipelineSpec, keys: Sequence[bytes | None] | None = None) -> bool:
    """Checks that both ways say the same; gives whether the kernel read every row."""
    given = segments(values, [b"c1"] * len(values) if keys is None else keys)
    both, slow = DECODERS[id(spec)]
    plan = both.plan(given)
    assert said(plan, spec) == said(slow.plan(given), spec)
    assert len(plan) + len(plan.rejects) == len(values)
    return plan.plain is not None and not plan.rejects and all(plan.plain.other(row) is None for row in range(len(plan)))


def payment(**members: Any) -> bytes:
    return json.dumps(GOOD | members).encode()


_WORD = some.text("abcXYZ09 _-.", min_size=0, max_size=9)
_NUMBER = some.one_of(
    some.integers(-2000, 2000), some.integers(), some.floats(allow_nan=False), some.decimals(-9999, 9999, places=2).map(float),
    some.sampled_from([0, -0.0, 0.1, 1e-7, 123456789012345.67, 2**53, 2**53 - 1, 9007199254740993]),
)  # fmt: skip
_ANY = some.one_of(_WORD, _NUMBER, some.none(), some.booleans(), some.text(max_size=4), some.lists(some.integers(), max_size=2))
_MEMBERS: dict[str, Any] = {
    "event_id": _WORD | _ANY, "event_time": some.sampled_from([0, 1.5, -1, None, "2026-01-01T00:00:00Z", "soon", 10**18, True]),
    "tenant": some.sampled_from(["", "acme", None, 7, "x" * 129]), "country": some.sampled_from(["DE", "FR", "de", None, "", 7]),
    "currency": some.sampled_from(["EUR", None, "euro"]), "merchant_id": _WORD | _ANY, "ip": _ANY, "amount": _NUMBER | _ANY,
    "count": _NUMBER | _ANY, "share": _NUMBER | _ANY, "online": _ANY, "note": _ANY, "specversion": some.sampled_from([None, "1.0", 1]),
    "unknown": _ANY, "amoun": _ANY, "amounts": _ANY,
}  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # a kernel may be compiled first
@given(
    some.lists(some.tuples(some.fixed_dictionaries({}, optional=_MEMBERS), some.sampled_from([None, 1]), some.booleans()), max_size=4),
    some.sampled_from([(",", ":"), (" , ", " : "), (",\n", "\t:\r")]),
)
def test_members_of_any_kind_are_the_same_either_way(given: list[tuple[dict[str, Any], Any, bool]], signs: tuple[str, str]) -> None:
    values = [
        json.dumps(GOOD | more if good else more, indent=indent, separators=signs, ensure_ascii=good).encode()
        for more, indent, good in given
    ]
    agree(values, PAYMENTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.integers(0, 200), some.binary(min_size=1, max_size=2), some.sampled_from(["put", "cut", "replace"]))
@example(0, b" ", "put")
def test_damaged_bytes_are_the_same_either_way(place: int, given: bytes, how: str) -> None:
    value = payment(country="DE", online=False, note=None, other="x y", deep=17)
    place %= len(value) + 1
    damaged = {"put": value[:place] + given + value[place:], "cut": value[:place], "replace": value[:place] + given + value[place + 1 :]}
    agree([payment(), damaged[how]], PAYMENTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.one_of(some.floats(allow_nan=False, allow_infinity=False), some.decimals(-(10**12), 10**12, places=3), some.integers()))
def test_numbers_are_the_doubles_that_python_reads(number: Any) -> None:
    text = str(number)
    agree([b'{"event_id":"e","user_id":"c1","amount":1,"ts":%b}' % text.encode()], SECONDS)
    agree([b'{"event_id":"e","user_id":"c1","amount":%b}' % text.encode()], SECONDS)
    agree([payment()[:-1] + b',"share":%b}' % text.encode()], PAYMENTS)


@pytest.mark.parametrize(
    "value",
    [
        payment(), payment(amount=3), payment(country="DE", currency=None, note="", tenant="acme", online=False, unknown="text, {} [] :"),
        payment(event_time="2026-01-01T00:00:00.5+01:00"), payment(event_time=None), payment(merchant_id=17),
        payment(share=-2.25, count=-3),
        payment(event_id=None), b" \n" + payment() + b"\r\t", payment(unknown=None, other=True, more=-0.5),
        payment(customer_id="c1", card_id="k" * 64), payment(specversion=None),
        payment(unknown={}), payment(unknown=[]), payment(unknown=[1, {"a": [[], {"b": None}], "c": "x"}, -2.5, True]),
    ],
)  # fmt: skip
def test_plain_events_are_read_by_the_kernel(value: bytes) -> None:
    assert agree([value, payment()], PAYMENTS)


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{}", b"[]", payment()[:-1], payment() + b"}", payment(note="é"), payment(unknown='"'), payment(unknown={"é": 1}),
        payment(share=1e300), payment(amount="12"), payment(amount=0), payment(country="de"), payment(event_time="soon"),
        payment(event_time=1.5), payment(event_time=10**18), payment(card_id="k" * 65), payment(count=1001), payment(count=2.0),
        payment(specversion="1.0"), payment(other="x" * 600), payment(customer_id="c2"), payment(customer_id=None), payment(merchant_id=0),
        payment()[:-1] + b',"amount":13}', payment().replace(b"12.5", b"012.5"), payment().replace(b"12.5", b"12."),
        payment().replace(b"12.5", b"-"), payment().replace(b"12.5", b"1.25e1"), payment()[:-1] + b',"share":-0}',
        payment()[:-1] + b',"share":1234567890123456789}', payment()[:-1] + b',"x":nul}', payment().replace(b'"e1"', b'"e\n1"'),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_other_way(value: bytes | None) -> None:
    assert not agree([payment(), value], PAYMENTS)


def test_keys_and_headers_are_looked_at() -> None:
    plain = [json.dumps(LESS).encode()] * 3
    assert agree(plain, SECONDS) and not agree(plain, SECONDS, [b"c1", b"c2", b"c1"]) and not agree(plain, SECONDS, [b"c1", b"c1", None])
    both, slow = DECODERS[id(SECONDS)]
    with_tenant = [Segment("t", 0, 1, np.arange(3), np.arange(3), [b"c1"] * 3, plain, [(), [("tenant", b"acme")], ()])]
    assert said(both.plan(with_tenant), SECONDS) == said(slow.plan(with_tenant), SECONDS)
    assert both.plan(with_tenant).tenant == ["", "acme", ""]


def test_an_event_without_an_id_is_known_by_its_place() -> None:
    values = [json.dumps(LESS | {"event_id": name}).encode() for name in ("a", None, "c")]
    assert agree(values, SECONDS)
    assert [*DECODERS[id(SECONDS)][0].plan(segments(values, [b"c1"] * 3)).event_id] == ["a", "t-1-1", "c"]


def test_few_rows_are_not_worth_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PLAIN_ROWS_MIN", 3)
    assert agree([payment()] * 3, PAYMENTS) and not agree([payment()] * 2, PAYMENTS)


def message(**members: Any) -> bytes:
    return json.dumps(SAID | members, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "value",
    [
        message(), message(text="a"), message(text="Größe 9"), message(text="ok \U0001f60a"), message(text="\u2764 ok"),
        message(text="ok!?"), message(metadata="x"),
        message(text="x" * 10_000), message(text="é" * 9_998 + "ok"), message(text="a  b\x7f &amp; c"), message(text="ｆｒｅｅ cash"),
        message(metadata={"client": "app/2.9"}, language="de"), message(metadata=[1, [2, [{}]]]), message(metadata=17),
        message(channel="chat", ip="198.51.100.7", device_id=9), message(tenant="acme"),
    ],
)  # fmt: skip
def test_texts_and_json_are_read_by_the_kernel(value: bytes) -> None:
    assert agree([value, message(text="And now?"), value], MESSAGES)


@pytest.mark.parametrize(
    "value",
    [
        message(text=""), message(text=" ok"), message(text="ok\u00a0"), message(text="\u3000ok"), message(text="ok\u2009"),
        message(text="ok\u205f"), message(text="\u1680ok"), message(text="ok\u0085"), message(text="?"), message(text="\u200b\u200b"),
        message(text="&#32;"), message(text="x" * 10_001), message(text="é" * 9_999 + "ok"), message(text='He said "no"'),
        message(text="a\nb"), message(text=7), message(text=None), message(metadata=None), message(metadata={"x": "y" * 1000}),
        message(metadata={"é": 1}), message(metadata=[[[]]] * 400), message(language="DE"), message(user_id="é"), message(ip="é\n"),
        message(metadata=json.loads("[" * 70 + "]" * 70)), message(text="ok").replace(b"ok", b"o\xffk"),
        message(text="ok").replace(b"ok", b"k\xc3"),
        message()[:-1] + b',"metadata":{"a":1,}}', message()[:-1] + b',"metadata":[1 2]}', message()[:-1] + b',"metadata":{"a" 1}}',
        message()[:-1] + b',"metadata":{1:1}}', message()[:-1] + b',"metadata":[1}', message()[:-1] + b',"metadata":[1,]}',
        message()[:-1] + b',"metadata":}', message()[:-1] + b',"text":"twice"}', json.dumps(SAID | {"text": "ok \U0001f60a"}).encode(),
        b"\0\0\0\0\7" + message(), b"\xef\xbb\xbf" + message(), message(specversion="1.0"),
    ],
)  # fmt: skip
def test_odd_texts_and_json_are_looked_at_closely(value: bytes) -> None:
    assert not agree([value], MESSAGES)
    assert not agree([message(), value, message(text="And now?", tenant="acme"), value, message(event_id=None), message()], MESSAGES)


_LETTERS = some.text(some.sampled_from([*'ab Z9.!?&"\\/\n\t\x7fé\u00a0\u200b\u3000\U0001f60a', "ﬁ"]), max_size=12)
_JSON = some.recursive(
    _NUMBER | _WORD | some.none(), lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_WORD, inner, max_size=3)
)
_SAYING: dict[str, Any] = {
    "text": _LETTERS, "metadata": _JSON, "event_id": _LETTERS | some.none(), "tenant": _LETTERS | some.none(), "channel": _LETTERS,
    "language": some.sampled_from(["de", "DE", None]), "ip": _LETTERS, "user_id": some.sampled_from(["c1", "é", 7]),
    "event_time": some.sampled_from([0, 1.5, None, "2026-01-01T00:00:00Z", "soon"]),
}  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(some.tuples(some.fixed_dictionaries({}, optional=_SAYING), some.booleans(), some.booleans()), max_size=7))
def test_messages_of_any_kind_are_the_same_either_way(given: list[tuple[dict[str, Any], bool, bool]]) -> None:
    values = [json.dumps(SAID | (more if odd else {}), ensure_ascii=escaped).encode() for more, odd, escaped in given]
    agree(values, MESSAGES, [b"c1" if json.loads(value).get("user_id") == "c1" else b"7" for value in values])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.integers(0, 300), some.binary(min_size=1, max_size=3), some.sampled_from(["put", "cut", "replace"]))
def test_damaged_messages_are_the_same_either_way(place: int, given: bytes, how: str) -> None:
    value = message(text="Größe \U0001f60a ok", metadata={"client": ["app", 2.9, None]}, language="de")
    place %= len(value) + 1
    damaged = {"put": value[:place] + given + value[place:], "cut": value[:place], "replace": value[:place] + given + value[place + 1 :]}
    agree([message(), damaged[how], message()], MESSAGES)


def test_where_many_rows_are_odd_all_are_read_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "ODD_SHARE_MAX", 0.25)
    odd, both = message(text="a\nb"), DECODERS[id(MESSAGES)][0]
    assert both.plan(segments([message()] * 3 + [odd], [b"c1"] * 4)).plain is not None
    assert both.plan(segments([message()] * 2 + [odd], [b"c1"] * 3)).plain is None
