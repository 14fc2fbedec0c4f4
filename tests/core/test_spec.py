"""The pipeline file: every mistake is told at once, with its line, its key and the fix."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from streamapp.core.document import key_lines
from streamapp.core.errors import ConfigError
from streamapp.core.patterns import compile_pattern
from streamapp.core.spec import PipelineSpec, parse_spec

MESSAGES = (Path(__file__).resolve().parents[2] / "pipelines" / "messages.toml").read_text(encoding="utf-8")
LEAST = """
[pipeline]
name = "p"
version = "1"
key = "id"

[event.fields.id]
type = "id"
required = true
"""


def parsed(text: str) -> PipelineSpec:
    return parse_spec(tomllib.loads(text), "file.toml", text)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as told:
        parsed(text)
    head, *lines = str(told.value).splitlines()
    assert head == f"file.toml: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    return [line.strip() for line in lines]


def test_the_messages_pipeline_is_read() -> None:
    spec = parsed(MESSAGES)
    assert (spec.pipeline.key, spec.event.max_bytes, spec.namespace) == ("user_id", 65_536, "messages")
    assert list(spec.event.fields) == ["user_id", "text", "language", "metadata", "channel", "ip", "device_id"]
    assert spec.features.profile["follower_count"].high == 1e6
    assert [tier.name for tier in spec.tiers] == ["fast"]
    assert spec.field_types()["text"] == "private"
    assert spec.field_types()["language"] == "string"
    assert "metadata" not in spec.field_types()


def test_the_least_pipeline_has_no_models_and_no_rules() -> None:
    spec = parsed(LEAST)
    assert (spec.tiers, spec.rules, spec.ngrams, spec.features.text) == ((), (), None, None)
    assert (spec.thresholds.block, spec.thresholds.default_route, spec.delivery) == ("card", "review", "at_least_once")
    assert parsed('delivery = "at_least_once"\n' + LEAST + '[topics]\nnamespace = "x.y"\n').namespace == "x.y"


PLANTED = {
    'name = "messages"\nversion': ('name = "Mess ages"\nversion', "pipeline.name"),
    "max_bytes = 65536": ("max_byte = 65536", "unknown key `max_byte` (did you mean `max_bytes`?)"),
    'type = "text"': ('type = "txt"', "event.fields.text.type: 'txt' is wrong"),
    "max_length = 1000\n": ("max_length = 0\n", "event.fields.metadata.max_length: 0 is wrong: expected int >= 1"),
    'pattern = "^[a-z]{2}$"': ('pattern = "^([a-z]*)*$"', "event.fields.language.pattern: repeats a group"),
    "[event.fields.ip]": ("[event.fields.event_id]", "`event_id` is a field of every event"),
    "default = 30.0, low = 0.0": ("default = -1.0, low = 0.0", "default = -1 is outside low = 0 .. high = 3650"),
    "word = [1, 2]": ("word = [2, 1]", "ngrams.word: [2, 1] is empty; write [1, 2]"),
    "buckets = 32768": ("buckets = 3", "ngrams.buckets: 3 is wrong: expected int >= 16"),
    '  "url_count", "excl': ('  "char_count", "excl', "`char_count` is already that of vector.numeric[3]"),
    'when = "url_count > 2"': ('when = "url_count >"', "rules[0].when: many_urls: is no condition"),
    'code = "many_exclamations"': ('code = "many_urls"', "`many_urls` is already that of rules[0]"),
    'route = "block"': ('route = "blok"', "(did you mean `block`?)"),
    'name = "fast"': ('nam = "fast"', "unknown key `nam` (did you mean `name`?)"),
    "psi_alarm = 0.2": ("psi_alarm = -1.0", "drift.psi_alarm: -1.0 is wrong: expected float > 0.0"),
}


@pytest.mark.parametrize("place", PLANTED)
def test_a_planted_mistake_is_told_with_its_line(place: str) -> None:
    wrong, says = PLANTED[place]
    assert MESSAGES.count(place) >= 1
    found = mistakes(MESSAGES.replace(place, wrong, 1))
    assert any(says in one for one in found), found
    assert all(one.startswith("line ") for one in found), found


def test_fifteen_planted_mistakes_are_told_at_once() -> None:
    text = MESSAGES
    for place, (wrong, _) in PLANTED.items():
        text = text.replace(place, wrong, 1)
    found = mistakes(text)
    for _, says in PLANTED.values():
        assert sum(says in one for one in found) == 1, says
    assert len([one for one in found if "tiers[0].name: is missing" not in one]) == len(PLANTED)  # a key misspelt is also a key missing


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ("[pipelin]\n", "unknown key `pipelin` (did you mean `pipeline`?)"),
        ("[event]\nmax_bytes = 1\n", "event.max_bytes: 1 is wrong"),
        ('[event.fields.class]\ntype = "string"\n', "no Python keyword"),
        ('[event.fields.a]\ntype = "string"\nminimum = 1\n', "event.fields.a.minimum: does not apply to type 'string'; remove it"),
        ('[event.fields.a]\ntype = "number"\nmax_length = 1\n', "does not apply to type 'number'"),
        ('[event.fields.a]\ntype = "string"\nmin_length = 3\nmax_length = 2\n', "3 is above max_length = 2"),
        ('[event.fields.a]\ntype = "integer"\nminimum = 3\nmaximum = 2\n', "3 is above maximum = 2"),
        ('[event.fields.a]\ntype = "string"\noverflow = "truncate"\n', 'only a field of type "text" with max_length can be truncated'),
        ('[event.fields.a]\ntype = "integer"\ndefault = 1.5\n', "1.5 is not of type 'integer'"),
        ('[event.fields.a]\ntype = "number"\ndefault = true\n', "True is not of type 'number'"),
        ('[event.fields.a]\ntype = "number"\ndefault = 5\nmaximum = 2\n', "5 is outside the field's own bounds"),
        ('[event.fields.a]\ntype = "string"\ndefault = "abc"\nmax_length = 2\n', "'abc' is outside the field's own length bounds"),
        ('[event.fields.a]\ntype = "string"\ndefault = "A"\npattern = "^[a-z]$"\n', "'A' does not match the field's own pattern"),
        ('[event.fields.a]\ntype = "string"\nrequired = true\ndefault = "x"\n', "a required field has no default"),
        ('[event.fields.a]\ntype = "json"\ndefault = "x"\n', "a json field has no default"),
        ('[features.text]\nfield = "txt"\n', 'features.text.field: `txt` is no declared field of type "text"'),
        ("[features.profile]\nid = { default = 0.0, low = 0.0, high = 1.0 }\n", "is also a field of the event"),
        ("[thresholds]\nblock = 0.3\napprove = 0.4\n", "0.4 is above block = 0.3"),
        ("[thresholds]\nblock = 1.5\n", "thresholds.block: 1.5 is wrong"),
        ('[thresholds]\nblock = "cart"\n', "(did you mean `card`?)"),
        ("[topics.retention_ms]\nevnts = 5\n", "`evnts` is no topic of a pipeline (did you mean `events`?)"),
        ("[drift]\nwindow_s = true\n", "drift.window_s: True is wrong"),
        ("[[rules]]\n", "rules[0].code: is missing; add `code = ...`"),
    ],
)
def test_what_does_not_fit_is_told(added: str, says: str) -> None:
    assert any(says in one for one in mistakes(LEAST + added))


def test_the_key_must_be_a_required_id() -> None:
    assert "did you mean `id`?" in mistakes(LEAST.replace('key = "id"', 'key = "i"'))[0]
    assert 'must have type = "id" and required = true' in mistakes(LEAST.replace("required = true", ""))[0]


def test_documents_of_the_wrong_shape_are_told_not_raised() -> None:
    for document in ({}, {"pipeline": 1, "event": []}, {"event": {"fields": 3}}, {"event": {"fields": {"a": 1}}, "rules": {"x": 1}}):
        with pytest.raises(ConfigError):
            parse_spec(document, "file.toml")


def test_lines_are_those_of_the_keys() -> None:
    text = '[a]\nx = [\n  "b = 1",\n]\n"y z".k = 1\n[[r]]\nw = """\nv = 2\n"""\n[[r]]\nw = 3\n[r.sub]\nq = 1\n'
    lines = key_lines(text)
    expected = {"a": 1, "a.x": 2, "a.y z.k": 5, "r[0]": 6, "r[0].w": 7, "r[1]": 10, "r[1].w": 11, "r[1].sub": 12, "r[1].sub.q": 13}
    assert lines == expected


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[a-z]{2}$", ["en"], ["en\n", "e", "EN", "xen"]), ("b", ["abc"], ["ac"]), (r"^\d+$", ["12"], ["", "1a", "\u0661"]),
        ("^(?:a|b)$", ["a", "b"], ["c", "ab"]), (r"^[\]a]$", ["]", "a"], ["b"]), (r"^\$$", ["$"], ["a"]), ("^[$]$", ["$"], ["a"]),
    ],
)  # fmt: skip
def test_patterns_mean_what_json_schema_means(pattern: str, good: list[str], bad: list[str]) -> None:
    matches = compile_pattern(pattern, None)
    assert not isinstance(matches, str), matches
    assert [matches(text) for text in good] == [True] * len(good)
    assert [matches(text) for text in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*", "(a|a)*", "(?:a+b?)+", "((a))+(b*c)*", r"(a)\1", "(?=a)", "(?P<n>a)", "a*a*a*", "a{0,2000}a{0,2000}", "a?" * 20, "(a|b)" * 20,
     "[", "(", "a{", "a" * 201, r"\p"],
)  # fmt: skip
def test_patterns_that_could_run_away_are_refused(pattern: str) -> None:
    assert isinstance(compile_pattern(pattern, 100), str)


def test_two_unbounded_repeats_need_a_bounded_value() -> None:
    assert isinstance(compile_pattern("a*b*", None), str)
    assert not isinstance(compile_pattern("a*b*", 1000), str)
