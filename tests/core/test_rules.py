"""Rules: what the language takes and refuses, exact limits, sentences, modes, versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamapp.config import load_pipeline
from streamapp.core.errors import ConfigError
from streamapp.core.features import definitions
from streamapp.core.route import REVIEW
from streamapp.core.rules import Rules, compile_rules
from streamapp.core.spec import RuleSpec

TYPES = {"url_count": "number", "ratio": "number", "known": "boolean", "country": "string", "home": "string", "user_id": "private"}


def rule(when: str, text: str = "{value} against {limit}", **more: Any) -> RuleSpec:
    return RuleSpec(**({"code": "r", "when": when, "route": "review", "text": text} | more))


def reasons(rules: Rules, **columns: Any) -> list[list[str]]:
    n = len(next(iter(columns.values())))
    found = rules.evaluate(columns.__getitem__, n)
    return [[reason.text for reason in rules.reasons(found, row)] for row in range(n)]


def test_the_rules_of_the_messages_pipeline_hit_above_their_exact_limits() -> None:
    spec = load_pipeline("messages")
    names = [one.name for one in definitions(spec.features)]
    rules = compile_rules(spec.rules, spec.field_types() | dict.fromkeys(names, "number"))
    at_limit = {
        "url_count": [2, 3, 20, 21],
        "exclamation_count": [3, 4, 0, 0],
        "capital_ratio": [0.5, 0.51, 0, 0],
        "repeat_ratio": [0.1, 0.11, 0, 0],
    }
    found = rules.evaluate(lambda name: np.array(at_limit[name], np.float64), 4)
    assert [[code for code, hit in zip(rules.codes, row, strict=True) if hit] for row in found.hit.tolist()] == [
        [], ["many_urls", "many_exclamations", "mostly_capitals", "repeated_characters"], ["many_urls"],
        ["many_urls", "flooded_with_links"],
    ]  # fmt: skip
    assert rules.always.tolist() == [False, False, False, False, True]
    assert rules.routes.tolist() == [REVIEW] * 4 + [2]
    first = rules.reasons(found, 1)[0]
    assert (first.code, first.feature, first.value, first.limit) == ("many_urls", "url_count", 3.0, 2.0)
    assert first.text == "contains 3 links; at most 2 are usual"


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("url_cont > 2", "`url_cont` is no feature or field (did you mean `url_count`?)"),
        ("country > 3", "`country > 3` compares a string with a number"),
        ("country > 'a'", "only numbers have an order"),
        ("known == 1", "compares a boolean with a number"),
        ("1 < 2", "is always the same"),
        ("url_count > 1 and 1 < 2", "is always the same"),
        ("true", "is always the same"),
        ("'a' in ['a']", "is always the same"),
        ("url_count", "is a number, not a condition"),
        ("url_count + 1", "is a number, not a condition"),
        ("url_count / 0 > 1", "divides by zero"),
        ("url_count % (1 - 1) > 1", "divides by zero"),
        ("url_count + country > 1", "a number is needed here"),
        ("country in []", "needs a list of constants"),
        ("country in home", "needs a list of constants"),
        ("country in [1]", "constants of type string"),
        ("country in [home]", "constants of type string"),
        ("known in [true]", "constants of type boolean"),
        ("url_count is 1", "is not part of the language"),
        ("url_count ** 2 > 1", "there are + - * / %"),
        ("__import__('os')", "is no function of the language"),
        ("url_count.real > 1", "is not part of the language"),
        ("url_count[0] > 1", "is not part of the language"),
        ("(lambda: 1)() > 0", "is no function"),
        ("pow(url_count, 2) > 1", "is no function of the language"),
        ("max(url_count) > 1", "takes two or more numbers"),
        ("abs(url_count, ratio) > 1", "takes one number"),
        ("min(url_count, ratio, key=1) > 1", "takes two or more numbers"),
        ("missing(1)", "takes the name of one feature or field"),
        ("missing(url_cnt)", "did you mean `url_count`?"),
        ("url_count > 1e999", "is no constant of the language"),
        ("url_count > 1j", "is no constant of the language"),
        ("url_count > 1 if known else known", "is not part of the language"),
        ("(x := url_count) > 1", "is not part of the language"),
        ("url_count >", "is no condition"),
        ("url_count > 1; known", "is no condition"),
        ("\0", "is no condition"),
        ("not " * 400 + "known", "at most 300 parts, 30 deep"),
        ("known and " * 200 + "known or " * 200 + "known", "characters"),
        ("url_count > 1 " + "or url_count > 1 " * 100, "at most 300 parts"),
    ],
)
def test_what_is_wrong_with_a_condition_is_said_when_it_is_loaded(when: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        compile_rules([rule(when)], TYPES)
    assert "rules[0].when: r: " in str(told.value)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{valu}", "`{valu}` is no feature or field (did you mean `value`?)"), ("{user_id} did it", "is private and is never quoted"),
        ("{value", "has a lone brace"), ("}{", "has a lone brace"),
        ("{value!r}", "`{value!r}` is no feature"), ("{value.real}", "is no feature"),
        ("{}", "is no feature"), ("{{value}}", "has a lone brace"),
    ],
)  # fmt: skip
def test_a_sentence_quotes_only_what_it_may(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        compile_rules([rule("url_count > 1", text)], TYPES)
    assert says in str(told.value)


def test_value_and_limit_need_a_comparison_that_may_be_quoted() -> None:
    for when in ("user_id == 'u'", "known", "missing(ratio)"):
        with pytest.raises(ConfigError, match="compares nothing that may be quoted"):
            compile_rules([rule(when)], TYPES)


def test_all_mistakes_of_all_rules_are_told_at_once_with_their_lines() -> None:
    wrong = [rule("url_cont > 1"), rule("known", code="fine", text="x"), rule("1 < 2", "{nobody}", code="both")]
    with pytest.raises(ConfigError) as told:
        compile_rules(wrong, TYPES, "file.toml", {"rules[0].when": 12, "rules[2]": 30})
    assert str(told.value).splitlines()[0] == "file.toml: 3 mistakes"
    assert [line.split(":")[0].strip() for line in str(told.value).splitlines()[1:]] == ["line 12", "line 30", "line 30"]


def test_reasons_tell_the_comparison_that_made_the_rule_hit() -> None:
    assert reasons(compile_rules([rule("3 < url_count")], TYPES), url_count=np.array([3.0, 4.0])) == [[], ["4 against 3"]]
    assert reasons(compile_rules([rule("not url_count <= 3")], TYPES), url_count=np.array([3.0, 4.0])) == [[], ["4 against 3"]]
    either = compile_rules([rule("(url_count > 5 and known) or ratio >= 0.25")], TYPES)
    assert reasons(either, url_count=np.array([9.0, 9.0]), ratio=np.array([0.5, 0.3333333]), known=[False, True]) == [
        ["0.5 against 0.25"], ["9 against 5"],
    ]  # fmt: skip
    listed = compile_rules([rule("country in ['RU', 'KP']", "{country} is one of {limit}")], TYPES)
    assert reasons(listed, country=["RU", None, "DE"]) == [["RU is one of RU, KP"], [], []]
    against = compile_rules([rule("url_count > 2 * ratio + 1")], TYPES)
    assert reasons(against, url_count=np.array([4.0]), ratio=np.array([1.25])) == [["4 against 3.5"]]


def test_a_private_field_may_decide_but_is_not_quoted() -> None:
    rules = compile_rules([rule("user_id in ['u1', 'u2']", "a blocked account")], TYPES)
    found = rules.evaluate({"user_id": ["u1", "u3"]}.__getitem__, 2)
    (reason,) = rules.reasons(found, 0)
    assert (reason.text, reason.value, reason.limit) == ("a blocked account", None, None)
    assert rules.reasons(found, 1) == []


def test_only_live_rules_decide_and_drafts_are_checked() -> None:
    rules = compile_rules(
        [rule("url_count > 1", code="a", mode="shadow"), rule("url_count > 2", code="b", mode="draft"), rule("known", "x")], TYPES
    )
    found = rules.evaluate({"url_count": np.array([5.0, 0.0]), "known": [True, None]}.__getitem__, 2)
    assert (rules.codes, rules.shadow_codes) == (("r",), ("a",))
    assert (found.hit.tolist(), found.shadow.tolist()) == ([[True], [False]], [[True], [False]])
    assert rules.hits_of("b", found).tolist() == [True, False]
    with pytest.raises(ConfigError):
        compile_rules([rule("nothing > 2", mode="draft")], TYPES)


def test_the_version_follows_what_decides_and_nothing_else() -> None:
    def version(**more: Any) -> str:
        return compile_rules([rule("url_count > 1", **more)], TYPES).version

    assert version() == version(owner="somebody") == version(hit={"text": "x"})
    assert len({version(), version(route="block"), version(text="{value}"), version(mode="shadow"), version(decides="without_model")}) == 5


def test_no_rules_and_no_rows_are_fine() -> None:
    found = compile_rules([], TYPES).evaluate({}.__getitem__, 3)
    assert found.hit.shape == (3, 0)
    assert compile_rules([rule("url_count > 1")], TYPES).evaluate({"url_count": np.empty(0)}.__getitem__, 0).hit.shape == (0, 1)
