"""What becomes of records: good ones, bad ones by name, envelopes, and everything odd that JSON can carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from streamapp.core.decode import Decoder
from streamapp.core.events import Flag
from streamapp.core.text import clean
from tests.core.decode_cases import DECODER, GOOD, RECORD_TIME, SPEC, decide, rows, segment

STRUCTURED = {
    "specversion": "1.0", "type": "t", "source": "/s", "id": "ce-1", "time": "2018-04-05T03:56:24Z", "datacontenttype": "application/json",
}  # fmt: skip
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"ce-1"), ("ce_time", b"2018-04-05T03:56:24Z"), ("content-type", b"application/json")]
CE_TIME = 1_522_900_584_000


def event(**members: Any) -> bytes:
    return json.dumps({"event_id": "e", "user_id": "u1", "text": "hello"} | members).encode()


def column(value: bytes, name: str) -> Any:
    plan = DECODER.plan([segment([value])])
    assert not plan.rejects, plan.rejects
    found = plan.column(name)[0]
    return bytes(found) if isinstance(found, msgspec.Raw) else found


def test_an_event_of_only_required_fields_takes_defaults_and_its_place() -> None:
    plan = DECODER.plan([segment([b'{"user_id":"u1","text":"hello"}'], first_offset=7)])
    assert (plan.event_id, plan.tenant, plan.event_time.tolist()) == (["t-0-7"], [""], [RECORD_TIME])
    assert plan.column("language") == ["en"]
    assert bytes(plan.column("metadata")[0]) == b"null"
    assert (plan.segment.dtype, plan.index.dtype, plan.event_time.dtype, plan.flags.dtype) == (np.int32, np.int32, np.int64, np.int32)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ('"u1"', "u1"), ("1", "1"), ("123456789012345678", "123456789012345678"), ("18446744073709551616", "18446744073709551616"),
        ("1" + "0" * 120, "1" + "0" * 120), ("7.0", "7"), ("1e3", "1000"), ("12345678901234567890.0", "12345678901234567890"),
        ('"\\u00e9"', "é"), ('" "', " "), ('"-1"', "-1"),
    ],
)  # fmt: skip
def test_an_id_is_a_string_and_a_number_becomes_its_digits(given: str, text: str) -> None:
    assert column(b'{"text":"x","user_id":%b}' % given.encode(), "user_id") == text


@pytest.mark.parametrize(
    ("members", "code", "path"),
    [
        ('"text":"x"', "missing_field", "$.user_id"),
        ('"user_id":"u"', "missing_field", "$.text"),
        ('"text":"x","user_id":0', "out_of_range", "$.user_id"),
        ('"text":"x","user_id":-1', "out_of_range", "$.user_id"),
        ('"text":"x","user_id":-0', "out_of_range", "$.user_id"),
        ('"text":"x","user_id":-99999999999999999999', "out_of_range", "$.user_id"),
        ('"text":"x","user_id":1.5', "wrong_type", "$.user_id"),
        ('"text":"x","user_id":1e-400', "wrong_type", "$.user_id"),
        ('"text":"x","user_id":1e400', "too_long", "$.user_id"),
        ('"text":"x","user_id":1e99999999999999999999', "out_of_range", "$.user_id"),
        ('"text":"x","user_id":' + "9" * 5000, "too_long", "$.user_id"),
        ('"text":"x","user_id":true', "wrong_type", "$.user_id"),
        ('"text":"x","user_id":null', "wrong_type", "$.user_id"),
        ('"text":"x","user_id":["u"]', "wrong_type", "$.user_id"),
        ('"text":"x","user_id":""', "too_short", "$.user_id"),
        ('"text":"x","user_id":"' + "u" * 129 + '"', "too_long", "$.user_id"),
        ('"text":7,"user_id":"u"', "wrong_type", "$.text"),
        ('"text":"","user_id":"u"', "blank_text", "$.text"),
        ('"text":" \\t\\n\\u00a0\\u3000","user_id":"u"', "blank_text", "$.text"),
        ('"text":"x","user_id":"u","language":"EN"', "pattern_mismatch", "$.language"),
        ('"text":"x","user_id":"u","language":"en\\n"', "pattern_mismatch", "$.language"),
        ('"text":"x","user_id":"u","language":7', "wrong_type", "$.language"),
        ('"text":"x","user_id":"u","metadata":"' + "m" * 999 + '"', "too_long", "$.metadata"),
        ('"text":"x","user_id":"u","event_time":"yesterday"', "invalid_time", "$.event_time"),
        ('"text":"x","user_id":"u","event_time":1e300', "invalid_time", "$.event_time"),
        ('"text":"x","user_id":"u","event_time":99999999999999999999', "invalid_time", "$.event_time"),
        ('"text":"x","user_id":"u","event_time":true', "invalid_time", "$.event_time"),
        ('"text":"x","user_id":"u","event_id":{}', "wrong_type", "$.event_id"),
        ('"text":"x","user_id":"u","event_id":""', "too_short", "$.event_id"),
        ('"text":"x","user_id":"u","channel":"' + "c" * 65 + '"', "too_long", "$.channel"),
        ('"text":"x","user_id":"u","other":NaN', "invalid_json", "$"),
        ('"text":"x","user_id":"u","other":Infinity', "invalid_json", "$"),
        ('"text":"x","user_id":"u","other":"\\ud800"', "invalid_json", "$"),
        ('"text":"\\ud83d","user_id":"u"', "invalid_json", "$"),
        ('"text":"\\udc00","user_id":"u"', "invalid_json", "$"),
        ('"text":"x","user_id":"u",', "invalid_json", "$"),
        ('"text":"x" "user_id":"u"', "invalid_json", "$"),
        ('"text":"x","user_id":"u","other":' + "[" * 50_000, "invalid_json", "$"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(members: str, code: str, path: str) -> None:
    assert decide(b"{%b}" % members.encode()) == ("reject", code, path)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null_value"), (b"", "invalid_json"), (b" ", "invalid_json"), (b"null", "not_an_object"), (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"), (b"1", "not_an_object"), (b"\xff\xfe{\x00", "invalid_utf8"),
        ("{}".encode("utf-16-be"), "invalid_json"),
        (b'{"user_id":"u","text":"\xed\xa0\x80"}', "invalid_utf8"), (b'{"user_id":"u","text":"x","other":"\xff"}', "invalid_utf8"),
        (b'{"user_id":"u","text":"x","other":"' + b"o" * 65_536 + b'"}', "too_large"), (b"\0\0\0\0\1", "invalid_json"),
        (b"\0", "invalid_json"),
        (b"{'user_id':'u'}", "invalid_json"), (GOOD + b" {}", "invalid_json"), (b"\xef\xbb\xbf", "invalid_json"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_event_are_named(value: bytes | None, code: str) -> None:
    assert decide(value) == ("reject", code, "$")


def test_messages_of_rejects_never_quote_the_value() -> None:
    secret = "s3cret"
    values = [event(language=secret), event(event_time=secret), event(user_id=[secret]), event(metadata=secret * 400), secret.encode()]
    plan = DECODER.plan([segment(values)])
    assert len(plan.rejects) == len(values)
    assert not [reject for reject in plan.rejects if secret in reject.message]


def test_text_is_stripped_then_cut_and_flagged() -> None:
    plan = DECODER.plan([segment([event(text="  hi \n"), event(text=" " + "ä" * 10_000 + " "), event(text="ä" * 10_001)])])
    assert plan.column("text") == ["hi", "ä" * 10_000, "ä" * 10_000]
    assert plan.flags.tolist() == [0, 0, Flag.TRUNCATED]


def test_metadata_is_kept_as_it_came_and_counted_in_characters() -> None:
    assert column(b'{"user_id":"u","text":"x","metadata":{"a": [1,  2]}}', "metadata") == b'{"a": [1,  2]}'
    assert column(event(metadata="m" * 998), "metadata") == b'"' + b"m" * 998 + b'"'
    wide = '{"user_id":"u","text":"x","metadata":"' + "é" * 998 + '"}'
    assert len(column(wide.encode(), "metadata").decode()) == 1000


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        ("1700000000000", 1_700_000_000_000), ("1700000000000.9", 1_700_000_000_000), ("1.7e12", 1_700_000_000_000), ("0", 0),
        ('"2018-04-05T03:56:24.5+02:00"', CE_TIME - 7_199_500), ("null", RECORD_TIME),
    ],
)  # fmt: skip
def test_event_time_is_rfc_3339_or_epoch_ms(given: str, ms: int) -> None:
    value = b'{"user_id":"u","text":"x","event_time":%b}' % given.encode()
    assert DECODER.plan([segment([value])]).event_time.tolist() == [ms]
    assert DECODER.plan([segment([value, event(event_time=5), event(event_time="1970-01-01T00:00:01Z")])]).event_time.tolist() == [
        ms,
        5,
        1000,
    ]


def test_null_is_absent_for_optional_fields() -> None:
    fate = decide(event(language=None, channel=None, tenant=None, event_id=None, event_time=None, metadata=None))
    assert fate[:4] == ("event", "t-0-0", "", RECORD_TIME)
    assert column(event(language=None), "language") == "en"


def test_the_last_of_two_equal_members_counts_and_unknown_members_are_ignored() -> None:
    assert column(b'{"user_id":"a","text":"x","user_id":"b","x":{"y":[1e999,"\\u0000"]}}', "user_id") == "b"
    assert column(b'{"user_id":[],"text":"x","user_id":"b"}', "user_id") == "b"


def test_a_byte_order_mark_is_ignored() -> None:
    assert decide(b"\xef\xbb\xbf" + GOOD) == decide(GOOD)


def test_a_structured_cloudevent_gives_its_data_its_id_and_its_time() -> None:
    data = {"user_id": "u1", "text": "hello"}
    for headers in (
        [],
        [("content-type", b"application/cloudevents+json")],
        [("content-type", b"application/cloudevents+json; charset=utf-8")],
    ):
        fate = decide(json.dumps(STRUCTURED | {"data": data}).encode(), headers)
        assert fate[:4] == ("event", "ce-1", "", CE_TIME)
    own = decide(json.dumps(STRUCTURED | {"data": data | {"event_id": "mine", "event_time": 5}}).encode())
    assert own[:4] == ("event", "mine", "", 5)
    encoded = STRUCTURED | {"data_base64": "eyJ1c2VyX2lkIjoidTEiLCJ0ZXh0IjoiaGVsbG8ifQ=="}
    assert decide(json.dumps(encoded).encode())[:4] == ("event", "ce-1", "", CE_TIME)


def test_a_binary_cloudevent_lends_what_the_event_lacks() -> None:
    assert decide(b'{"user_id":"u1","text":"hello"}', BINARY)[:4] == ("event", "ce-1", "", CE_TIME)
    assert decide(event(event_time=5), BINARY)[:4] == ("event", "e", "", 5)
    assert decide(GOOD, [*BINARY, ("tenant", b"acme")])[:3] == ("event", "good", "acme")
    assert decide(event(tenant="own"), [("tenant", b"acme")])[2] == "own"


@pytest.mark.parametrize(
    ("members", "headers", "code", "path"),
    [
        ({"specversion": "0.3", "data": {}}, [], "unsupported_encoding", "$.specversion"),
        ({"specversion": 1, "data": {}}, [], "unsupported_encoding", "$.specversion"),
        (STRUCTURED, [], "missing_field", "$.data"),
        (STRUCTURED | {"data": {"text": "x"}}, [], "missing_field", "$.data.user_id"),
        (STRUCTURED | {"data": "x"}, [], "not_an_object", "$.data"),
        (STRUCTURED | {"data_base64": "?"}, [], "unsupported_encoding", "$.data_base64"),
        (STRUCTURED | {"data_base64": "/w=="}, [], "invalid_utf8", "$.data"),
        (STRUCTURED | {"id": 7, "data": {}}, [], "wrong_type", "$.id"),
        (STRUCTURED | {"time": "noon", "data": {"user_id": "u", "text": "x"}}, [], "invalid_time", "$.time"),
        (STRUCTURED | {"datacontenttype": "text/plain", "data": {}}, [], "unsupported_encoding", "$.datacontenttype"),
        ({"user_id": "u", "text": "x"}, [("content-type", b"application/cloudevents+json")], "unsupported_encoding", "$.specversion"),
        ({"user_id": "u", "text": "x"}, [("content-type", b"application/avro")], "unsupported_encoding", "headers.content-type"),
        (
            {"user_id": "u", "text": "x"},
            [("content-type", b"application/cloudevents-batch+json")],
            "unsupported_encoding",
            "headers.content-type",
        ),
        (
            {"user_id": "u", "text": "x"},
            [("content-type", b"application/json; charset=utf-16")],
            "unsupported_encoding",
            "headers.content-type",
        ),
        ({"user_id": "u", "text": "x"}, [("ce_specversion", b"2.0")], "unsupported_encoding", "headers.ce_specversion"),
        ({"user_id": "u", "text": "x"}, [("ce_specversion", b"1.0"), ("ce_time", b"noon")], "invalid_time", "headers.ce_time"),
        ({"user_id": "u", "text": "x"}, [("ce_specversion", b"1.0"), ("ce_id", b"\xff")], "invalid_utf8", "headers"),
        ({"user_id": "u", "text": "x"}, [("tenant", b"t" * 129)], "too_long", "headers.tenant"),
    ],
)
def test_what_is_wrong_with_an_envelope_is_named(members: dict[str, Any], headers: list[tuple[str, bytes]], code: str, path: str) -> None:
    assert decide(json.dumps(members).encode(), headers) == ("reject", code, path)


def test_headers_that_say_nothing_change_nothing() -> None:
    for headers in ([("traceparent", b"00-1")], [("content-type", b"application/json")], [("content-type", None)], [("ce_id", b"x")]):
        assert decide(GOOD, headers) == decide(GOOD)


def test_a_confluent_frame_is_taken_off_and_its_id_is_recorded() -> None:
    framed = b"\0\0\0\1\xf4" + GOOD
    plan = DECODER.plan([segment([framed, GOOD, b"\0\0\0\0\x07 " + GOOD]), segment([GOOD, framed, b"\0bad"], partition=1)])
    assert plan.schema_id is not None
    assert plan.schema_id.tolist() == [500, -1, 7, -1, 500]
    assert [reject.code.value for reject in plan.rejects] == ["invalid_json"]
    assert DECODER.plan([segment([GOOD])]).schema_id is None


def test_keys_are_compared_where_the_pipeline_asks_for_it() -> None:
    keyed = Decoder(msgspec.structs.replace(SPEC, event=msgspec.structs.replace(SPEC.event, key_required=True)))
    values = [b'{"user_id":7,"text":"x"}', GOOD, GOOD, b"{}"]
    plan = keyed.plan([segment(values, keys=[b"7", b"other", None, b"u1"])])
    assert plan.column("user_id") == ["7"]
    assert [(reject.index, reject.code.value, reject.path) for reject in plan.rejects] == [
        (1, "key_mismatch", "key"), (2, "key_mismatch", "key"), (3, "missing_field", "$.user_id"),
    ]  # fmt: skip


def test_nothing_in_gives_nothing_out() -> None:
    for segments in ([], [segment([])], [segment([None])]):
        plan = DECODER.plan(segments)
        assert len(plan) == 0
        assert plan.event_id == [] and plan.event_time.shape == plan.flags.shape == (0,)
        assert plan.column("text") == []


def test_segments_keep_their_places_around_rejects() -> None:
    plan = DECODER.plan([segment([b"x", GOOD], first_offset=5), segment([]), segment([GOOD, None, GOOD], partition=3)])
    assert list(zip(plan.segment.tolist(), plan.index.tolist(), strict=True)) == [(0, 1), (2, 0), (2, 2)]
    assert [(reject.segment, reject.index) for reject in plan.rejects] == [(0, 0), (2, 1)]


def test_json_test_suite_never_stops_a_good_neighbour(shared_data: Path) -> None:
    files = sorted((shared_data / "jsontestsuite" / "test_parsing").iterdir())
    assert len(files) > 300
    values: list[bytes | None] = [GOOD]
    for file in files:
        values += [file.read_bytes(), GOOD]
    plan = DECODER.plan([segment(values)])
    fates = rows(plan)
    assert [fate[0] for fate in fates[::2]] == ["event"] * (len(files) + 1)
    assert all(fate[0] == "reject" for fate in fates[1::2])  # none of them is an event of this pipeline
    unreadable = {"invalid_json", "invalid_utf8"}
    for file, (_, code, _) in zip(files, fates[1::2], strict=True):
        assert not (file.name.startswith("y_") and code in unreadable), file.name
        assert not (file.name.startswith("n_") and code not in unreadable | {"too_large"}), file.name


def test_json_test_suite_inside_a_field_nobody_asked_for(shared_data: Path) -> None:
    for file in sorted((shared_data / "jsontestsuite" / "test_parsing").glob("[yn]_*.json")):
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        fate = decide(b'{"user_id":"u1","text":"hello","other":[%b]}' % content)
        if file.name.startswith("y_"):
            assert fate[0] == "event", file.name
        elif not is_json(b"[%b]" % content):  # nothing at all, say, is sound between brackets
            assert fate[0] == "reject", file.name


def is_json(text: bytes) -> bool:
    """Says what Python's own parser thinks, without its three extra constants."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def test_naughty_strings_survive_as_they_are(shared_data: Path) -> None:
    strings = json.loads((shared_data / "blns" / "blns.json").read_text(encoding="utf-8"))
    texts = [text for text in strings if clean(text)]
    assert len(texts) > 500
    plan = DECODER.plan([segment([event(text=text, device_id=f"d{text}"[:128]) for text in texts])])
    assert not plan.rejects
    assert plan.column("text") == [text.strip() for text in texts]
    ids = [text for text in strings if 0 < len(text) <= 128]
    assert DECODER.plan([segment([event(user_id=text) for text in ids])]).column("user_id") == ids


def test_cloudevents_conformance_events_are_opened(shared_data: Path) -> None:
    documents = list(yaml.safe_load_all((shared_data / "cloudevents" / "v1_minimum.yaml").read_text(encoding="utf-8")))
    assert len(documents) >= 6
    for document in documents:
        attributes = {name: str(value) for name, value in document["ContextAttributes"].items()}
        headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items() if name != "datacontenttype"]
        content_type = attributes["datacontenttype"]
        fate = decide(document["Data"].encode(), [*headers, ("content-type", content_type.encode())])
        if "json" not in content_type:
            assert fate == ("reject", "unsupported_encoding", "headers.content-type")
        else:  # read, but no message of this pipeline
            assert fate[1] in ("missing_field", "not_an_object")
        ours = json.dumps(attributes | {"datacontenttype": "application/json", "data": {"user_id": "u", "text": "x"}})
        assert decide(ours.encode())[:2] == ("event", attributes["id"])


@pytest.mark.parametrize("text", ["&#32;", "\\u200b\\u200c", "\\u0001", "\\ufeff \\u2060"])
def test_a_text_of_which_cleaning_leaves_nothing_is_blank(text: str) -> None:
    values = [b'{"user_id":"u","text":"%b"}' % text.encode(), b'{"user_id":"u","text":"!"}']
    plan = DECODER.plan([segment(values)])
    assert [(reject.code, reject.path) for reject in plan.rejects] == [("blank_text", "$.text")] and len(plan) == 1
