"""Rules and lists of a pipeline file as a whole: all that is wrong is told at once, and each rule can decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamapp.config import load_pipeline
from streamapp.control.release import assemble, check_examples
from streamapp.core.errors import ConfigError
from streamapp.core.implied import Domain, Range
from streamapp.core.rules import compile_rules
from streamapp.core.spec import RuleSpec

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TYPES = {"a": "number", "b": "number", "known": "boolean", "s": "string", "who": "private"}
DOMAIN = Domain({"a": Range(0, 10)}, frozenset({"a"}))


def test_a_file_with_fifteen_mistakes_gives_fifteen_errors_with_line_key_and_fix() -> None:
    with pytest.raises(ConfigError) as told:
        load_pipeline(str(GOLDEN / "fifteen_mistakes.toml"))
    head, *found = str(told.value).splitlines()
    assert head.endswith("fifteen_mistakes.toml: 15 mistakes")
    assert "\n".join(line.strip() for line in found) + "\n" == (GOLDEN / "fifteen_mistakes.txt").read_text(encoding="utf-8")
    assert all(line.strip().startswith("line ") for line in found)


def told(*rules: RuleSpec) -> str:
    try:
        compile_rules(rules, TYPES, domain=DOMAIN, lists={"friends": frozenset({"who"})})
    except ConfigError as failure:
        return str(failure)
    return ""


def rule(when: str, code: str = "r", **more: Any) -> RuleSpec:
    return RuleSpec(**({"code": code, "when": when, "route": "review", "text": "x"} | more))


@pytest.mark.parametrize(
    "when",
    ["a > 10", "a < 0", "b > 2 and b < 2", "b > 2 and not b > 1", "s == 'x' and s == 'y'", "s == 'x' and s not in ['x', 'y']",
     "known and not known", "b in [1, 2] and b > 2", "missing(b) and b > 1", "missing(a)", "a > b and b >= a", "3 < b < 2",
     "known == true and known == false", "in_list(who, 'friends') and not in_list(who, 'friends')"],
)  # fmt: skip
def test_a_condition_that_cannot_be_true_is_refused(when: str) -> None:
    assert "can never be true" in told(rule(when))


@pytest.mark.parametrize("when", ["a >= 0", "a <= 10", "a < 5 or a >= 5", "not missing(a)", "not (a > 4 and a < 3)"])
def test_a_condition_that_is_always_true_is_refused(when: str) -> None:
    assert "is true of every event" in told(rule(when))


@pytest.mark.parametrize(
    "when",
    ["a > 9.99", "b < 5 or b >= 5", "s == 'x' or s != 'x'", "a / b > 1 or a / b <= 1", "b > 1 and s == 'x'", "known or not known",
     "missing(b) or b > 0", "a > b and b > 1", "in_list(who, 'friends')", "a / a > 1 or a / a <= 1"],
)  # fmt: skip
def test_what_can_be_true_and_untrue_is_taken(when: str) -> None:
    assert told(rule(when)) == ""


@pytest.mark.parametrize(
    ("first", "second", "unreachable"),
    [
        (rule("a > 5", "one"), rule("a > 6", "two"), "two"),
        (rule("a > 6", "one"), rule("a > 5", "two"), ""),
        (rule("a > 6", "one"), rule("a > 5", "two", route="block"), "one"),
        (rule("a > 5", "one", route="block"), rule("a > 6", "two"), "two"),
        (rule("a > 5", "one"), rule("a > 6", "two", route="block"), ""),
        (rule("a > 5", "one", decides="without_model", route="block"), rule("a > 6", "two"), ""),
        (rule("a > 5", "one"), rule("a > 6", "two", decides="without_model", route="block"), "two"),
        (rule("a > 5", "one", mode="shadow"), rule("a > 6", "two"), ""),
        (rule("a > 5", "one"), rule("a > 6", "two", mode="draft"), "two"),
        (rule("s in ['x', 'y']", "one"), rule("s == 'x' and known", "two"), "two"),
        (rule("s in ['x', 'y'] or a > 3", "one"), rule("s == 'x' or a > 4", "two"), "two"),
        (rule("s != 'x'", "one"), rule("s == 'y'", "two"), "two"),
        (rule("a < b", "one"), rule("b > a and known", "two"), "two"),
        (rule("b > 1", "one"), rule("missing(b)", "two"), ""),
        (rule("not in_list(who, 'friends')", "one"), rule("a > 2", "two"), ""),
    ],
)
def test_a_rule_in_whose_place_another_one_always_decides_is_refused(first: RuleSpec, second: RuleSpec, unreachable: str) -> None:
    found = told(first, second)
    assert (f"{unreachable}: never decides" in found) if unreachable else found == ""


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "p.toml"
    path.write_text(text, encoding="utf-8")
    try:
        check_examples(assemble(load_pipeline(str(path)), {}, b"test-key-of-16-b"))
    except ConfigError as failure:
        return str(failure)
    return ""


LEAST = """
[pipeline]
name = "p"
version = "1"
key = "id"
[event.fields.id]
type = "id"
required = true
[event.fields.amount]
type = "number"
required = true
[features.fields]
amount = { default = 0, low = 0, high = 1e9 }
[[rules]]
code = "large"
when = "amount > 5"
route = "review"
text = "{value}"
"""


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ("hit = { amount = 6 }", "rules[0].miss: is missing; add an example event"),
        ("hit = { amount = 5 }\nmiss = { amount = 5 }", "rules[0].hit: large: this example misses; change it or `when = 'amount > 5'`"),
        ("hit = { amount = 6 }\nmiss = { amount = 6 }", "rules[0].miss: large: this example hits"),
        ("hit = { amount = 'x' }\nmiss = { amount = 5 }", "rules[0].hit: large: the example is no event: $.amount"),
        ("hit = { amunt = 6 }\nmiss = { amount = 5 }", "`amunt` is no declared field (did you mean `amount`?)"),
        ("hit = { features = { amout = 6 } }\nmiss = { amount = 5 }", "`amout` is no feature (did you mean `amount`?)"),
        ("hit = { features = { amount = 'x' } }\nmiss = { amount = 5 }", "'x' is no number"),
        ("hit = { features = 1 }\nmiss = { amount = 5 }", "`features` and `lists` are tables"),
        ("hit = { lists = { friends = ['u'] } }\nmiss = { amount = 5 }", "`friends` is no list"),
    ],
)
def test_examples_that_are_missing_or_do_not_do_what_they_should_are_told(examples: str, says: str, tmp_path: Path) -> None:
    assert says in refused(LEAST + examples, tmp_path)


def test_a_name_that_only_a_wrong_part_of_the_file_makes_is_told_once(tmp_path: Path) -> None:
    text = LEAST.replace("low = 0, high", "low = 'x', high") + "hit = { amount = 6 }\nmiss = { amount = 5 }\n"
    assert "1 mistake\n" in refused(text, tmp_path)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ('effect = "deny"', 'lists.friends.fields: effect = "deny" needs the fields to look up'),
        ('fields = ["id"]', "lists.friends.fields: only rules ask about it"),
        ('effect = "allow"\nkind = "words"\nfields = ["id"]', "a word does not vouch for the rest of a text"),
        ('effect = "deny"\nfields = ["idd"]', '`idd` is no declared field of type "id" or "string" (did you mean `id`?)'),
        ('effect = "deny"\nfields = ["id"]\ntext = "{name}"', "`{name}` is no slot"),
        ('text = "sorry"', "only what is denied needs a sentence"),
        ('kind = "vaules"', "(did you mean `values`?)"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(declared: str, says: str, tmp_path: Path) -> None:
    assert says in refused(f"{LEAST}hit = {{ amount = 6 }}\nmiss = {{ amount = 5 }}\n[lists.friends]\n{declared}\n", tmp_path)
