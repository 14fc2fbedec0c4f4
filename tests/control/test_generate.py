"""The generated stream: one seed is one stream, shares are as declared, and garbage gets the code it was broken for."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import orjson
import pytest

from streamapp.control import phrases
from streamapp.control.generate import HAM, SPAM, Generated, Mix, messages

COUNT = 20_000
MIX = Mix(seed=11)


@pytest.fixture(scope="module")
def stream() -> list[Generated]:
    return list(messages(COUNT, MIX))


def good(stream: list[Generated]) -> list[dict[str, object]]:
    return [orjson.loads(record.value) for record in stream if record.expected is None]


def test_one_seed_is_one_stream_and_another_seed_is_another(stream: list[Generated]) -> None:
    assert list(messages(COUNT, MIX)) == stream
    assert list(messages(COUNT, replace(MIX, seed=12))) != stream


def test_as_many_records_as_asked_for(stream: list[Generated]) -> None:
    assert len(stream) == COUNT
    assert list(messages(0, MIX)) == []


def test_event_ids_are_unique_and_event_time_advances(stream: list[Generated]) -> None:
    events = good(stream)
    assert len({event["event_id"] for event in events}) == len(events)
    times = [event["event_time"] for event in events if isinstance(event["event_time"], int)]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert any(isinstance(event["event_time"], str) for event in events), "some producers write RFC 3339"


def test_the_key_is_the_user_id_also_where_it_is_written_as_a_number(stream: list[Generated]) -> None:
    kinds = Counter()
    for record in stream:
        if record.expected is None:
            user = orjson.loads(record.value)["user_id"]
            kinds[type(user)] += 1
            assert record.key == str(user).encode()
    assert set(kinds) == {str, int}


def test_the_share_of_garbage_is_as_declared() -> None:
    for share in (0.0, 0.01, 0.2):
        broken = sum(record.expected is not None for record in messages(COUNT, replace(MIX, garbage=share)))
        assert broken == pytest.approx(share * COUNT, rel=0.25, abs=0)


def test_spam_bursts_above_its_usual_share(stream: list[Generated]) -> None:
    def spam_share(records: list[Generated]) -> float:
        labels = [record.label for record in records if record.label]
        return labels.count(SPAM) / len(labels)

    quiet = spam_share(stream[: MIX.burst_every - MIX.burst_events])
    burst = spam_share(stream[MIX.burst_every - MIX.burst_events : MIX.burst_every])
    assert quiet == pytest.approx(MIX.spam, abs=0.02)
    assert burst == pytest.approx(MIX.burst_spam, abs=0.06)


def test_some_campaigns_hide_and_ordinary_people_do_not(stream: list[Generated]) -> None:
    hidden = re.compile("[\u0370-\u058f\u200b-\u200d\u2060\uff01-\uff5e\U0001d400-\U0001d7ff]")
    share = Counter()
    total = Counter()
    for event in good(stream):
        total[event["label"]] += 1
        share[event["label"]] += bool(hidden.search(str(event["text"])))
    assert share[SPAM] > 0.02 * total[SPAM]
    assert share[HAM] == 0


def test_topics_lengths_and_links_shift_half_way(stream: list[Generated]) -> None:
    texts = [str(event["text"]) for event in good(stream) if event["label"] == HAM]
    before, after = texts[: len(texts) // 3], texts[-len(texts) // 3 :]
    assert sum("http" in text for text in before) == 0
    assert sum("http" in text for text in after) > 0.2 * len(after)
    assert sum(map(len, after)) / len(after) > 1.3 * sum(map(len, before)) / len(before)
    steady = [event for event in good(list(messages(COUNT, replace(MIX, drift_at=None)))) if event["label"] == HAM]
    assert not any("http" in str(event["text"]) for event in steady)


def test_a_few_users_write_most(stream: list[Generated]) -> None:
    by_user = Counter(record.key for record in stream)
    busiest = sum(times for _, times in by_user.most_common(len(by_user) // 20))
    assert busiest > 0.3 * COUNT


def test_every_slot_of_every_template_has_words() -> None:
    texts = [*phrases.CHAT, *phrases.PLANS, *phrases.SPAM, *phrases.SPAM_LATER]
    texts += [text for several in (*phrases.CHAT_ELSEWHERE.values(), *phrases.WORDS.values()) for text in several]
    assert {slot for text in texts for slot in re.findall(r"\{(\w+)\}", text)} <= set(phrases.WORDS)
    assert not any("{" in str(event["text"]) for event in good(list(messages(2_000, MIX))))
