"""Lists: who is found on them and how, when an entry ends, what goes before what, and what a reason may say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streamapp import pipeline
from streamapp.control.release import assemble, check_examples
from streamapp.core.errors import ConfigError
from streamapp.core.examples import segment_of
from streamapp.core.lists_entry import encode, entry_of, normal, normal_forms
from streamapp.core.lists_table import ListTable
from streamapp.core.ruling import check_ruling
from streamapp.core.schema import verdict_schema
from streamapp.core.spec import ListSpec, parse_spec
from streamapp.core.windows_index import hash_bytes

PIPELINE = """
[pipeline]
name = "posts"
version = "1"
owner = "safety"
key = "user"
[event.fields.user]
type = "id"
required = true
[event.fields.ip]
type = "id"
[event.fields.text]
type = "text"
[event.fields.score]
type = "number"

[lists.banned]
effect = "deny"
fields = ["user", "ip"]
entries = ["mallory"]

[lists.watched]
effect = "deny"
route = "review"
fields = ["user"]
text = "the account is watched by {owner}"

[lists.friends]
effect = "allow"
fields = ["user"]

[lists.friendly_texts]
kind = "content"
effect = "allow"
fields = ["text"]

[lists.known_bad]
kind = "content"
effect = "deny"
fields = ["text"]
similarity = 0.7

[lists.shouting]
kind = "words"
effect = "deny"
fields = ["text"]

[lists.proxies]

[[rules]]
code = "blocked_by_rule"
when = "score > 5"
route = "block"
text = "{value}"
hit = { score = 6 }
miss = { score = 5 }

[[rules]]
code = "from_a_proxy"
when = 'in_list(ip, "proxies") and not in_list(user, "friends")'
route = "review"
text = "from a proxy"
hit = { ip = "192.0.2.1", lists = { proxies = ["192.0.2.1"] } }
miss = { ip = "192.0.2.1", user = "u", lists = { proxies = ["192.0.2.1"], friends = ["u"] } }

[[tiers]]
name = "fast"
expression = "score / 10"

[thresholds]
approve = 0.1
block = 0.3
default_route = "review"
"""
SPEC = parse_spec(tomllib.loads(PIPELINE), "posts.toml", PIPELINE, check_ruling)
SERVING = assemble(SPEC, {}, b"test-key-of-16-b")


def record(name: str, text: str, match: Any = None, *, expires_at: int = 0, owner: str = "") -> tuple[bytes, bytes]:
    key, entry = entry_of(name, SPEC.lists[name], text, match, owner=owner, reason="seen in a raid", added_at=1, expires_at=expires_at)
    return key, encode(entry)


def table_of(*records: tuple[bytes, bytes | None]) -> ListTable:
    assert SERVING.lists is not None
    table = SERVING.lists.table()
    for offset, (key, value) in enumerate(records):
        table.apply(offset, key, value)
    return table


def decided(table: ListTable | None, *events: dict[str, Any]) -> list[dict[str, Any]]:
    plan = pipeline.plan([segment_of([{"user": "u1", **event} for event in events])], SERVING)
    assert not plan.rejects
    outcome = pipeline.decide(plan, pipeline.Read(lists=table), [SERVING.state.new()], SERVING, 0, lambda: 0.0)
    return [json.loads(verdict) for verdict in SERVING.encoder.verdicts(outcome)]


def said(table: ListTable | None, *events: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["verdict"], one["decided_by"]) for one in decided(table, *events)]


# One way of speaking for or against an event for each step of the policy order.
SPEAKS: dict[str, tuple[dict[str, Any], list[tuple[bytes, bytes]], tuple[str, str]]] = {
    "deny": ({"ip": "192.0.2.9"}, [record("banned", "192.0.2.9")], ("block", "list:banned")),
    "mild_deny": ({}, [record("watched", "u1")], ("review", "list:watched")),
    "allow": ({}, [record("friends", "u1")], ("approve", "list:friends")),
    "rule": ({"score": 6}, [], ("block", "rule")),
    "model": ({"score": 4}, [], ("block", "fast")),
    "default": ({}, [], ("review", "default")),
}


@pytest.mark.parametrize(("strong", "weak"), [(a, b) for i, a in enumerate(SPEAKS) for b in list(SPEAKS)[i:]])
def test_the_policy_order_holds_for_every_pair(strong: str, weak: str) -> None:
    """Deny, the stricter first, goes before allow, allow before rules, rules before models, models before the default."""
    event = SPEAKS[weak][0] | SPEAKS[strong][0]
    assert said(table_of(*SPEAKS[strong][1], *SPEAKS[weak][1]), event) == [SPEAKS[strong][2]]


def test_what_is_denied_says_the_list_the_kind_of_entry_and_the_owner_and_never_the_entry() -> None:
    table = table_of(
        record("banned", "192.0.2.9", "normalised", owner="raid team"), record("known_bad", "Send me your PIN now, it is urgent")
    )
    first, second, third = decided(table, {"ip": "192.0.2.9"}, {"user": "mallory"}, {"text": "send me your pin now - it is URGENT"})
    assert first["reasons"][0] == {
        "code": "list_banned", "text": "ip is on the list banned (whatever the case or disguise, kept by raid team)", "feature": "ip",
    }  # fmt: skip
    assert second["reasons"][0]["text"] == "user is on the list banned (to the letter, kept by safety)"
    assert (third["decided_by"], third["reasons"][0]["feature"]) == ("list:known_bad", "text")
    said = json.dumps([first, second, third])
    assert "192.0.2.9" not in said
    assert "raid" not in said.replace("raid team", "")
    assert "pin" not in said
    assert decided(table_of(record("watched", "u1")), {})[0]["reasons"][0]["text"] == "the account is watched by safety"
    schema = Draft202012Validator(verdict_schema(SPEC))
    assert [error.message for one in (first, second, third) for error in schema.iter_errors(one)] == []


def test_an_allowed_event_is_approved_without_reasons_and_no_model_is_asked() -> None:
    (verdict,) = decided(table_of(record("friends", "u1")), {"score": 4})
    assert (verdict["verdict"], verdict["reasons"], verdict["score"]) == ("approve", [], None)


@pytest.mark.parametrize(
    ("name", "entry", "match", "hits", "misses"),
    [
        ("banned", "Bob", None, [{"user": "Bob"}], [{"user": "bob"}, {"user": "Bobb"}, {"user": "Bo"}]),
        ("banned", " Böb  Smith", "normalised", [{"user": "böb smith"}, {"user": "BÖB\tSMITH "}], [{"user": "bobsmith"}]),
        ("banned", "ｂｏｂ", "normalised", [{"user": "BOB"}], [{"user": "b0b"}]),
        ("known_bad", "Win a prize!", "exact", [{"text": "Win a prize!"}], [{"text": "win a prize!"}, {"text": "Win a prize"}]),
        ("known_bad", "Win a prize!", None, [{"text": "wın  a PRIZE"}, {"text": "w1n a pr1ze..."}], [{"text": "win a prize today"}]),
        (
            "known_bad", "Dear customer, your parcel is held at customs, pay the fee of 2.99 here", "similar",
            [{"text": "dear customer, your parcel is held at customs. Pay the fee of 3.49 here"}],
            [{"text": "your customer has paid the fee here, dear, and holds the parcel"}, {"text": "parcel"}, {"text": "p"}],
        ),
        ("shouting", "free", None, [{"text": "get it FREE!"}, {"text": "fr33 money"}], [{"text": "freedom"}, {"text": "fre e"}]),
        ("shouting", "Free money", None, [{"text": "so, free, MONEY"}], [{"text": "free the money"}, {"text": "free"}, {"text": "money"}]),
        ("shouting", "a b c", None, [{"text": "x a b c y"}, {"text": "a b c"}], [{"text": "a b"}, {"text": "x x a b x c"}]),
    ],
)  # fmt: skip
def test_entries_hit_what_they_stand_for_and_nothing_else(
    name: str, entry: str, match: Any, hits: list[dict[str, Any]], misses: list[dict[str, Any]]
) -> None:
    found = said(table_of(record(name, entry, match)), *hits, *misses)
    assert [decided_by == f"list:{name}" for _, decided_by in found] == [True] * len(hits) + [False] * len(misses)


def test_rules_ask_lists_and_a_missing_value_is_on_none() -> None:
    check_examples(SERVING)
    table = table_of(record("proxies", "192.0.2.1"), record("friends", "u2"))
    codes = [[reason["code"] for reason in one["reasons"]] for one in decided(table, {"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}, {})]
    assert ["from_a_proxy" in one for one in codes] == [True, False, False]


def test_an_entry_ends_by_the_records_own_time_and_the_last_word_on_a_key_counts() -> None:
    plan = pipeline.plan([segment_of([{"user": "u1"}] * 3)], SERVING)
    plan.received_at[:] = [999, 1000, 1001]
    key, value = record("banned", "u1", expires_at=1000)
    forever = record("banned", "u1")[1]
    for records, wanted in (
        ([(key, value)], [True, False, False]), ([(key, value), (key, forever)], [True] * 3), ([(key, forever), (key, None)], [False] * 3),
        ([(key, None)], [False] * 3), ([(key, forever), (key, None), (key, value)], [True, False, False]),
    ):  # fmt: skip
        outcome = pipeline.decide(plan, pipeline.Read(lists=table_of(*records)), [SERVING.state.new()], SERVING, 0, lambda: 0.0)
        assert [SERVING.deciders[by] == "list:banned" for by in outcome.decided_by] == wanted


def test_a_fixed_entry_is_not_taken_away_and_other_peoples_records_are_passed_over() -> None:
    key, _ = record("banned", "mallory")
    table = table_of((key, None), (b"unknown_list/exact/" + b"0" * 32, None))
    assert said(table, {"user": "mallory"}) == [("block", "list:banned")]
    assert table.next_offset == 2
    friend = record("friends", "b")
    for wrong in ((None, None), (b"x", b"y"), (key, b"{}"), (friend[0], friend[1].replace(b"friends", b"foes")),
                  (b"banned/exact/zz", None), (b"banned/exact/12", None), (b"banned/loud/" + b"0" * 32, None)):  # fmt: skip
        with pytest.raises(ValueError, match="entry"):
            table.apply(5, *wrong)
    assert (table.next_offset, len(table)) == (6, 1)


def test_the_version_names_what_is_on_the_lists() -> None:
    one, other = record("banned", "a"), record("friends", "b")
    assert decided(table_of(one, other), {})[0]["versions"]["lists"] == table_of(one, other).version
    assert table_of(one, other).version == table_of(other, one).version
    assert table_of(one, other, (other[0], None)).version.split("-")[1] == table_of(one).version.split("-")[1]
    assert len({table_of(one).version, table_of(other).version, table_of().version, table_of(one, other).version}) == 4
    assert decided(None, {})[0]["versions"]["lists"] == table_of().version


def test_a_pipeline_without_lists_says_nothing_of_them() -> None:
    text = PIPELINE[: PIPELINE.index("[lists.banned]")]
    serving = assemble(parse_spec(tomllib.loads(text), "p", text, check_ruling), {}, b"test-key-of-16-b")
    assert serving.lists is None
    plan = pipeline.plan([segment_of([{"user": "mallory"}])], serving)
    outcome = pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 0, lambda: 0.0)
    assert "lists" not in json.loads(serving.encoder.verdicts(outcome)[0])["versions"]
    assert "lists" not in outcome.stage_ms


@pytest.mark.parametrize(
    ("name", "text", "match", "says"),
    [("banned", "", None, "is empty"), ("shouting", "!!!", None, "nothing of it is left"),
     ("banned", "a", "similar", "never compared as 'similar'"), ("shouting", "a", "exact", "never compared as 'exact'"),
     ("known_bad", "a" * 100_001, None, "has 100001 characters")],
)  # fmt: skip
def test_an_entry_that_cannot_be_compared_is_refused(name: str, text: str, match: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        record(name, text, match)


def test_whole_texts_leave_no_trace_of_themselves_in_their_record() -> None:
    key, value = record("known_bad", "my secret confession", "similar")
    assert b"secret" not in key + value
    assert b"secret" in record("shouting", "secret")[1]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(st.lists(names, max_size=8))
@settings(max_examples=100, deadline=None)
def test_normal_forms_are_those_of_each_value(values: Sequence[str]) -> None:
    data, start = normal_forms(values)
    assert [data[start[i] : start[i + 1]].tobytes().decode() for i in range(len(values))] == [normal(value) for value in values]


steps = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["add", "add", "expire", "remove"]), st.integers(1, 5)), max_size=60)


@given(steps, st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_a_table_is_what_a_dictionary_would_be(moves: list[tuple[int, str, int]], now: int) -> None:
    """Law: whatever was added, replaced and taken away, exactly what is alive is found, and the version follows the content."""
    lists = {"banned": ListSpec(fields=("user",), effect="deny")}
    table, twin = ListTable(lists), dict[str, int]()
    for offset, (who, what, until) in enumerate(moves):
        user = f"user {who}"
        ends = until if what == "expire" else 0
        key, entry = entry_of("banned", lists["banned"], user, None, owner="o", reason="", added_at=0, expires_at=ends)
        table.apply(offset, key, None if what == "remove" else encode(entry))
        if what == "remove":
            twin.pop(user, None)
        else:
            twin[user] = until if what == "expire" else 99
    data, start = normal_forms([f"user {who}" for who in range(10)])
    found = table.probe("banned", 0, hash_bytes(data, start), np.full(10, now))
    assert [bool(slot >= 0) for slot in found] == [twin.get(f"user {who}", 0) > now for who in range(10)]
    assert (len(table), table.sum == ListTable(lists).sum) == (len(twin), not twin)
