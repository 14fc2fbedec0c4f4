"""Features by example, the profile family, defaults and bounds, and what is derived from the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamapp.core.features import CATALOGUE, Bounds, FeatureSet, definitions, profile, spec_hash
from streamapp.core.features import text as text_features
from streamapp.core.features.catalogue import FeatureDef, feature_spec_hash, markdown
from streamapp.core.profiles import ProfilePlan
from streamapp.core.spec import FeaturesSection, NgramsSection, ProfileFeature, TextFeatures
from streamapp.core.text import text_column

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


class Spec:
    """The part of a PipelineSpec that decides features."""

    def __init__(self, *, text: bool = True, ngrams: NgramsSection | None = None, **bounds: ProfileFeature) -> None:
        self.features = FeaturesSection(text=TextFeatures(field="text") if text else None, profile=bounds)
        self.ngrams = ngrams


AGE = ProfileFeature(default=30.0, low=0.0, high=3650.0)
SENT = ProfileFeature(default=0.0, low=0.0, high=1e4)


def measured(text: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in text_features.compute(text_column([text])).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", dict.fromkeys([definition.name for definition in text_features.FEATURES], 0.0)),
        ("Win a prize", {"char_count": 11, "word_count": 3, "average_word_length": 3.0, "capital_ratio": 1 / 9, "unique_word_ratio": 1.0}),
        ("go Go GO \u00c9T\u00c9 \u00e9t\u00e9", {"word_count": 5, "unique_word_ratio": 2 / 5, "capital_ratio": 6 / 12}),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", {"char_count": 6, "capital_ratio": 1 / 6, "changed_share": 0.0}),
        ("what?! no!", {"exclamation_count": 2, "question_count": 1}),
        ("\uff01\uff1f", {"exclamation_count": 1, "question_count": 1}),
        ("see http://a.example, https://b.example and WWW.c.example", {"url_count": 3}),
        ("(http://www.a.example)http://b.example", {"url_count": 2}),
        ("http:// https:// www. wwww.a awww.b now.www.a", {"url_count": 1}),
        ("mail a.b+c@d-e.co.uk or X_1@Y.ORG.", {"email_count": 2}),
        ("@you me@home a@b.c @x.com a@.com a@b.co@c.com", {"email_count": 1}),
        ("freeee!!! aa 1000", {"repeat_ratio": (4 + 3 + 3) / 17}),
        ("a\n\n\nb", {"repeat_ratio": 0.0, "word_count": 2, "char_count": 5}),
        ("\U0001f600\U0001f600\U0001f600", {"char_count": 3, "repeat_ratio": 1.0, "capital_ratio": 0.0}),
        ("12 34", {"capital_ratio": 0.0, "average_word_length": 2.0}),
    ],
)
def test_text_features(text: str, expected: dict[str, float]) -> None:
    found = measured(text)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_letters_are_what_python_calls_letters() -> None:
    bits, lower = text_features._letters()
    step = 7  # every seventh code point of all: the tables come from numpy, the oracle from str
    for code in range(0, 0x110000, step):
        char = chr(code)
        assert bits[code] == char.isalpha() * 1 + char.isupper() * 2 + char.isspace() * 4, hex(code)
        if char.isupper() and len(char.lower()) == 1:
            assert lower[code] == ord(char.lower())


PLAN = ProfilePlan.of(["account_age_days", "messages_sent_7d", "karma"])
DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS


def known(n: int = 1, **values: list[float]) -> npt.NDArray[np.float64]:
    """Gives what the store knows of n users, NaN where nothing is said."""
    stored = np.full((n, len(PLAN.columns)), np.nan)
    for name, given in values.items():
        stored[:, PLAN.columns.index(name)] = given
    return stored


def compute(spec: Spec, texts: list[str] | None, profiles: npt.NDArray[np.float64] | None, n: int) -> FeatureSet:
    """Gives the features of n events at NOW_MS."""
    text = {} if texts is None else text_features.compute(text_column(texts))
    read = profile.compute(spec.features.profile, PLAN.columns, profiles, np.full(n, NOW_MS))
    bounds = Bounds(definitions(spec.features))
    return bounds.applied(bounds.room(text, read, n))


def test_profiles_are_read_defaulted_marked_and_clipped() -> None:
    created = [NOW_MS - 400 * DAY_MS, np.nan, NOW_MS + 3 * DAY_MS, NOW_MS - 1, NOW_MS - DAY_MS, 0.0]
    stored = known(6, account_created_ms=created, messages_sent_7d=[12, np.nan, 1e9, 0, -5, 3])
    result = compute(Spec(text=False, messages_sent_7d=SENT, account_age_days=AGE), None, stored, 6)
    assert result.names == ("account_age_days", "messages_sent_7d", "account_age_days_missing", "messages_sent_7d_missing")
    assert result.column("account_age_days").tolist() == [400, 30, 0, 0, 1, 3650]
    assert result.column("messages_sent_7d").tolist() == [12, 0, 1e4, 0, 0, 3]
    assert result.column("account_age_days_missing").tolist() == [0, 1, 0, 0, 0, 0]
    assert result.missing.tolist() == [1, 1, 0, 0]
    assert result.clipped.tolist() == [1, 2, 0, 0]
    with pytest.raises(KeyError, match="char_count"):
        result.column("char_count")


def test_missing_and_clipped_values_are_counted_as_whole_columns_would_be() -> None:
    rng = np.random.default_rng(5)
    given = np.where(rng.random((3, 40)) < 0.3, np.nan, rng.normal(0.0, 3.0, (3, 40)))
    defined = definitions(Spec(text=False, messages_sent_7d=SENT, account_age_days=AGE, karma=SENT).features)[:3]
    default, low, high = (np.array([getattr(one, side) for one in defined])[:, None] for side in ("default", "low", "high"))
    filled = np.where(np.isnan(given), default, given)
    unknown, bounded = np.isnan(given), np.clip(filled, low, high)
    found = Bounds(defined).applied(given)
    assert found.values.T.tolist() == bounded.tolist()
    assert found.missing.tolist() == unknown.sum(axis=1).tolist()
    assert found.clipped.tolist() == (bounded != filled).sum(axis=1).tolist()


def test_the_age_is_that_of_the_event_in_whole_days() -> None:
    """The same account, seen by events of different times: no clock, and a second on either side of a day counts."""
    times = np.array([NOW_MS - 1, NOW_MS, NOW_MS + 1, NOW_MS + DAY_MS - 1, NOW_MS + DAY_MS])
    read = profile.compute(["account_age_days"], PLAN.columns, known(5, account_created_ms=[float(NOW_MS)] * 5), times)
    assert read["account_age_days"].tolist() == [0, 0, 0, 0, 1]


def test_without_profiles_everything_is_missing() -> None:
    result = compute(Spec(account_age_days=AGE), ["a", "b c"], None, 2)
    assert result.column("account_age_days").tolist() == [30, 30]
    assert result.column("account_age_days_missing").tolist() == [1, 1]
    assert result.missing[result.names.index("account_age_days")] == 2
    assert result.values.shape == (2, len(result.names)) and result.values.dtype == np.float64
    assert result.column("word_count").tolist() == [1, 2]


def test_the_eight_user_features_have_a_fixed_order() -> None:
    assert profile.USER_FEATURES == (
        "account_age_days", "is_verified", "follower_count", "messages_sent_7d", "spam_reports_received", "avg_message_length",
        "reply_rate", "block_rate",
    )  # fmt: skip
    everything = dict.fromkeys(reversed(profile.USER_FEATURES), SENT)
    assert tuple(definition.name for definition in definitions(Spec(text=False, **everything).features))[:8] == profile.USER_FEATURES


def test_an_empty_batch() -> None:
    result = compute(Spec(account_age_days=AGE), [], None, 0)
    assert isinstance(result, FeatureSet) and result.values.shape == (0, len(result.names))
    assert not result.missing.any() and not result.clipped.any()


def test_the_order_is_that_of_the_catalogue_and_strangers_come_last() -> None:
    names = [d.name for d in definitions(Spec(karma=SENT, messages_sent_7d=SENT, account_age_days=AGE).features)]
    known = [d.name for d in CATALOGUE if d.name in names]
    assert [name for name in names if not name.startswith("karma")] == known
    assert names.index("karma") == names.index("messages_sent_7d") + 1 and names[-1] == "karma_missing"


def test_features_are_finite_and_within_bounds() -> None:
    spec = Spec(account_age_days=AGE)
    result = compute(spec, ["", "a" * 10_000, "!" * 9_999, "\ufdfa" * 10_000], None, 4)
    for definition, column in zip(definitions(spec.features), result.values.T, strict=True):
        assert np.isfinite(column).all()
        assert ((column >= definition.low) & (column <= definition.high)).all()


def test_the_hash_follows_what_changes_values() -> None:
    def version(**changes: Any) -> str:
        given: dict[str, Any] = {
            "name": "x", "version": 1, "description": "d", "created_at": "2026-01-01", "tags": ("t",), "low": 0.0, "high": 1.0
        } | changes  # fmt: skip
        return feature_spec_hash([FeatureDef(**given)], {"ngrams": None}, {"cleaning": "1"})

    assert version() == version(description="other words", owner="somebody", tags=())
    assert len({version(), version(name="y"), version(version=2), version(low=-1.0), version(high=2.0), version(default=0.5)}) == 6
    one, two = NgramsSection(field="text", seed=1), NgramsSection(field="text", seed=2)
    hashes = {
        spec_hash(Spec()),
        spec_hash(Spec(ngrams=one)),
        spec_hash(Spec(ngrams=two)),
        spec_hash(Spec(account_age_days=AGE)),
        spec_hash(Spec(account_age_days=ProfileFeature(default=31.0, low=0.0, high=3650.0))),
    }
    assert len(hashes) == 5 and all(len(digest) == 64 for digest in hashes)
    assert spec_hash(Spec(account_age_days=AGE, messages_sent_7d=SENT)) == spec_hash(Spec(messages_sent_7d=SENT, account_age_days=AGE))


def test_the_catalogue_names_each_feature_once_and_its_page_is_current() -> None:
    names = [definition.name for definition in CATALOGUE]
    assert len(set(names)) == len(names) and {"char_count", "repeat_ratio", "changed_share", "account_age_days"} <= set(names)
    page = (DOCS / "features.md").read_text(encoding="utf-8")
    assert page == markdown(CATALOGUE), (
        "docs/features.md is not what the definitions say: write it anew with streamapp.core.features.catalogue.markdown(CATALOGUE)"
    )
    assert all(definition.description and definition.owner and definition.tags and definition.created_at for definition in CATALOGUE)
