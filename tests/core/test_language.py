"""Sentences as data: the shipped languages are complete, what is missing or wrong in one is named, and reasons are told in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamapp import pipeline
from streamapp.config import load_pipeline, shipped
from streamapp.control.languages import load_language
from streamapp.control.release import assemble
from streamapp.core.errors import ConfigError
from streamapp.core.explain import ModelReasons, Sentences, beside_normal
from streamapp.core.language import SENTENCES, Words, parse_language, shown
from streamapp.core.route import ROUTE_NAMES
from streamapp.core.spec import ReasonsSection
from streamapp.core.state import StatePlan
from tests.line import ENTITY_KEY, linear_model, segment

ENGLISH, GERMAN = load_language("en"), load_language("de")
PIPELINES = sorted(file.stem for file in shipped("pipelines").glob("*.toml"))


@pytest.mark.parametrize("name", ["messages", "payments"])
def test_shipped_pipelines_can_be_served_in_german(name: str) -> None:
    serving = assemble(load_pipeline(name), {}, ENTITY_KEY, GERMAN)
    assert serving.sentences.last_resort(np.nan, np.nan, "review").text.endswith("die Vorgabe: prüfen")


@pytest.mark.parametrize("name", PIPELINES)
def test_without_a_setting_the_pipeline_speaks_its_own_language(name: str) -> None:
    spec = load_pipeline(name)
    assert assemble(spec, {}, ENTITY_KEY).release == assemble(spec, {}, ENTITY_KEY, load_language(spec.reasons.language)).release


def changed(old: str, new: str) -> str:
    """Gives what is said of the English file with one change."""
    text = (shipped("languages") / "en.toml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(ConfigError) as failure:
        parse_language(tomllib.loads(text.replace(old, new, 1)), "en.toml", text.replace(old, new, 1))
    return str(failure.value)


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_a_missing_sentence_is_named(code: str) -> None:
    assert f"`{code}` is missing" in changed(f"{code} =", "other =")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("the default applies: {route}", "the default applies: {rout}", "`{rout}` is no slot of this sentence (did you mean `route`?)"),
        ("duplicate = ", "duplicat = ", "there is no such entry (did you mean `duplicate`?)"),
        ("{feature} speaks for {label}", "{feature speaks", "has a lone brace"),
        ('review = "review"', "", "`review` is missing"),
        ('ms = "ms"', "", "`ms` is missing"),
        ("payments of this {entity}", "payments of this {who}", "`{who}` is no slot"),
        ("[routes]", "[routs]", "unknown key `routs`"),
    ],
)
def test_what_is_wrong_in_a_language_is_told_with_its_place(old: str, new: str, told: str) -> None:
    assert told in changed(old, new)


def test_a_foreign_language_must_have_words_for_every_rule_and_input() -> None:
    spec = load_pipeline("payments")
    words = GERMAN.pipelines["payments"]
    rules = {code: text for code, text in words.rules.items() if code != "card_burst"} | {"card_brust": "x"}
    windows = {kind: text for kind, text in words.windows.items() if kind != "max"}
    poorer = msgspec.structs.replace(GERMAN, pipelines={"payments": msgspec.structs.replace(words, rules=rules, windows=windows)})
    with pytest.raises(ConfigError) as failure:
        assemble(spec, {}, ENTITY_KEY, poorer)
    for told in ("`card_burst` is missing", "`customer_7d_max_amount` is missing", "no such rule (did you mean `card_burst`?)"):
        assert told in str(failure.value)
    own = msgspec.structs.replace(spec, reasons=ReasonsSection(language="de"))
    with pytest.raises(ConfigError, match="no such rule"):
        assemble(own, {}, ENTITY_KEY, poorer)


def test_a_slot_that_a_rule_does_not_know_is_refused_in_every_language() -> None:
    words = GERMAN.pipelines["messages"]
    rules = words.rules | {"many_urls": "enthält {wert} Verweise"}
    wrong = msgspec.structs.replace(GERMAN, pipelines={"messages": msgspec.structs.replace(words, rules=rules)})
    with pytest.raises(ConfigError, match=r"`\{wert\}` is no feature or field"):
        assemble(load_pipeline("messages"), {}, ENTITY_KEY, wrong)


def test_a_language_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no language dd"):
        load_language("dd")
    (tmp_path / "x.toml").write_text("[sentences")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_language(str(tmp_path / "x.toml"))


def test_windows_are_said_by_pattern_and_percent_signs_stay() -> None:
    spec = load_pipeline("payments")
    words = Words(ENGLISH, spec, StatePlan(spec).features, spec.vector.numeric, own=True)
    assert words.feature("customer_10m_count") == "the number of payments of this customer in 10 min"
    assert words.feature("card_7d_mean_amount") == "the mean amount of this card over 7 days"
    assert words.counted("customer_10m_count") == "payments of this customer in 10 min" and words.counted("amount") is None
    assert words.feature("word_ngrams") == "the choice of words" and words.feature("url_count") == "url count"
    odd = msgspec.structs.replace(ENGLISH, sentences=ENGLISH.sentences | {"duplicate": "100% of {value}"})
    assert Sentences(Words(odd, spec, (), (), own=True)).duplicate(7).text == "100% of 7"


def test_reasons_name_what_is_normal_for_the_entity_where_it_is_known() -> None:
    spec = load_pipeline("payments")
    words = Words(ENGLISH, spec, StatePlan(spec).features, ("amount", "hour"), own=True)
    told = ModelReasons("fraud", ("amount", "hour"), (54.5, 12.0), words)
    normals = {"amount": [20.0, float("nan")]}
    known, unknown = told.top(np.array([[2.0, -1.0, 0, 0], [2.0, 0, 0, 0]]), np.array([[500.0, 3.0], [500.0, 3.0]]), normals)
    assert known[0].text == "the amount is 500 (normal here: 20; usual: 54.5), which speaks for fraud"
    assert (known[0].normal, known[0].limit, known[0].weight) == (20.0, 54.5, 2.0) and known[1].normal is None
    assert unknown[0].text == "the amount is 500 (usual: 54.5), which speaks for fraud" and unknown[0].normal is None
    assert beside_normal(unknown, {"amount": [1.0]}, 0)[0].normal == 1.0 and beside_normal(unknown, normals, 1) == unknown


def test_decide_tells_normals_that_the_pipeline_declares_for_rules_and_models() -> None:
    spec = load_pipeline("messages")
    declared = ReasonsSection(normal={"url_count": "word_count / 4", "exclamation_count": "1 / (char_count - char_count)"})
    serving = assemble(msgspec.structs.replace(spec, reasons=declared), {"fast": linear_model()}, ENTITY_KEY)
    text = " ".join(f"http://{letter}.example" for letter in "abcdefghijklmnopqrstuvwxyz")
    plan = pipeline.plan([segment([msgspec.json.encode({"text": text, "user_id": "1"})])], serving)
    outcome = pipeline.decide(plan, pipeline.Read(), [serving.state.new()], serving, 0, lambda: 0.0)
    found = {reason.code: reason for reason in outcome.reasons[0]}
    assert ROUTE_NAMES[outcome.route[0]] == "block" and found["flooded_with_links"].normal == 6.5
    with pytest.raises(ConfigError, match="`url_cuont` is no feature"):
        assemble(msgspec.structs.replace(spec, reasons=ReasonsSection(normal={"url_cuont": "word_count"})), {}, ENTITY_KEY)
    with pytest.raises(ConfigError, match=r"reasons\.normal\.url_count: `wrods`"):
        assemble(msgspec.structs.replace(spec, reasons=ReasonsSection(normal={"url_count": "wrods"})), {}, ENTITY_KEY)


def test_numbers_are_shown_as_people_write_them() -> None:
    assert [shown(value) for value in (12345.0, 1234.567, 0.12345, 7, True, None, float("nan"), "AQ")] == [
        "12345", "1234.57", "0.1235", "7", "true", "nothing", "nothing", "AQ",
    ]  # fmt: skip
