"""Seeded events for `messages`: chat, spam campaigns that hide and burst, garbage with a declared reason, and a drift on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import orjson

from streamapp.control import phrases
from streamapp.control.garbage import MESSAGES, Breaker
from streamapp.control.obfuscate import ATTACKS, obfuscate

#: Where generated time begins unless it is told: a fixed instant, so that one seed gives the same bytes on every day.
DEFAULT_START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
HAM, SPAM = "ham", "spam"

#: A text in parts: literal ones, and for each slot the entries one of which fills it (a literal, or parts again).
Template = tuple["str | tuple[str | Template, ...]", ...]
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Mix:
    """What the stream is made of. Shares are of all events and are met on average."""

    seed: int = 7
    users: int = 5_000
    zipf: float = 1.1  #               activity of the k-th busiest user ~ k ** -zipf
    spam: float = 0.12  #              between bursts
    burst_spam: float = 0.45  #        while a campaign bursts
    burst_every: int = 10_000  #       one burst begins per so many events …
    burst_events: int = 600  #         … and lasts so many
    hidden: float = 0.6  #              of bursts, and of half as many campaigns after the drift, hide their words (look-alikes, leet …)
    garbage: float = 0.01
    drift_at: float | None = 0.5  #    part of the stream after which topics, lengths and links change; None: never
    events_per_s: float = 100.0  #     how fast event time advances
    start_ms: int = DEFAULT_START_MS


@dataclass(frozen=True, slots=True)
class Generated:
    """One record to be produced: `expected` is the reject code it was broken for, `drifted` says that it comes after the drift."""

    key: bytes | None
    value: bytes | None
    label: str | None
    expected: str | None = None
    drifted: bool = False


@dataclass(frozen=True, slots=True)
class _Campaign:
    template: Template
    attack: str | None
    senders: tuple[str, ...]


def messages(count: int, mix: Mix) -> Iterator[Generated]:
    """Gives `count` records; equal arguments give equal bytes. About 10 µs each."""
    return _Stream(count, mix).records()


class _Stream:
    """The state of one generated stream; every choice comes from one seeded source, in order."""

    def __init__(self, count: int, mix: Mix) -> None:
        self._count, self._mix = count, mix
        self._rng = np.random.default_rng(mix.seed)
        self._pick = _integers(self._rng).__next__
        self._chance = _chances(self._rng).__next__
        self._users = _population(mix, self._rng)
        self._chat = [_compile(text) for text in phrases.CHAT]
        self._elsewhere = {language: [_compile(text) for text in texts] for language, texts in phrases.CHAT_ELSEWHERE.items()}
        self._languages = tuple(self._elsewhere)
        self._plans = [_compile(text) for text in phrases.PLANS]
        self._spam = [_compile(text) for text in phrases.SPAM]
        self._spam_later = [_compile(text) for text in phrases.SPAM_LATER]
        self._breaker = Breaker(self._pick, MESSAGES)
        self._campaigns = [self._campaign(self._spam, 0.0) for _ in range(6)]
        self._burst = self._campaigns[0]
        self._drifted = False

    def records(self) -> Iterator[Generated]:
        mix, chance, pick = self._mix, self._chance, self._pick
        drift_from = self._count if mix.drift_at is None else int(self._count * mix.drift_at)
        step_ms = 1000.0 / mix.events_per_s
        for number in range(self._count):
            if number == drift_from:
                self._drifted = True
            place = number % mix.burst_every
            bursting = mix.burst_every - mix.burst_events <= place
            templates, hidden = (self._spam_later, mix.hidden / 2) if self._drifted else (self._spam, 0.0)
            if place % 1_000 == 999:  # campaigns come and go
                self._campaigns[pick() % len(self._campaigns)] = self._campaign(templates, hidden)
            if place == mix.burst_every - mix.burst_events:
                self._burst = self._campaign(templates, mix.hidden)
            spam = chance() < (mix.burst_spam if bursting else mix.spam)
            if spam:
                campaign = self._burst if bursting else self._campaigns[pick() % len(self._campaigns)]
                user, language, text = campaign.senders[pick() % len(campaign.senders)], "en", self._spam_text(campaign)
            else:
                user = self._users[pick() % len(self._users)]
                language, text = self._chat_text()
            event = self._event(number, int(mix.start_ms + number * step_ms), user, language, text, SPAM if spam else HAM)
            if chance() < mix.garbage:
                key, value, expected = self._breaker.broken(event)
                yield Generated(key, value, None, expected, self._drifted)
            else:
                yield Generated(user.encode(), orjson.dumps(event), event["label"], drifted=self._drifted)

    def _event(self, number: int, time_ms: int, user: str, language: str, text: str, label: str) -> dict[str, Any]:
        kind = self._pick()
        event: dict[str, Any] = {
            "event_id": f"m{self._mix.seed}-{number:08d}",
            "event_time": time_ms if kind % 50 else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "user_id": user if kind % 20 else int(user),
            "text": text,
            "language": language,
            "channel": _CHANNELS[kind % len(_CHANNELS)],
            "label": label,
        }
        if kind % 3 == 0:
            event["ip"] = f"198.51.100.{kind % 251}"
            event["metadata"] = {"client": f"app/{kind % 7}.{kind % 11}"}
        return event

    def _campaign(self, templates: Sequence[Template], hidden: float) -> _Campaign:
        pick = self._pick
        attack = ATTACKS[pick() % len(ATTACKS)] if self._chance() < hidden else None
        # A campaign keeps its phone number, its site and its code: they are filled in once, here.
        text = _fill(templates[pick() % len(templates)], pick)
        frozen = _compile(text.upper() if pick() % 6 == 0 else text)
        template = frozen if pick() % 4 else templates[pick() % len(templates)]
        first = pick() % 40
        senders = tuple(self._users[(first * 97 + 13 * place) % len(self._users)] for place in range(5 + pick() % 20))
        return _Campaign(template, attack, senders)

    def _spam_text(self, campaign: _Campaign) -> str:
        text = _fill(campaign.template, self._pick)
        return text if campaign.attack is None else obfuscate(text, campaign.attack, 0.3, self._rng)

    def _chat_text(self) -> tuple[str, str]:
        pick, chance = self._pick, self._chance()
        if self._drifted and chance < 0.45:
            return "en", _fill(self._plans[pick() % len(self._plans)], pick)
        if chance > 0.99:
            language = self._languages[pick() % len(self._languages)]
            texts = self._elsewhere[language]
            return language, _fill(texts[pick() % len(texts)], pick)
        chat = self._chat
        pieces = [_fill(chat[pick() % len(chat)], pick) for _ in range(_PIECES[pick() % len(_PIECES)])]
        text = " ".join(pieces)
        return "en", text.upper() if pick() % _SHOUTS == 0 else text


_CHANNELS = ("chat", "chat", "chat", "sms", "sms", "forum")
#: One in so many chat messages is written in capitals.
_SHOUTS = 60
#: How many pieces of chat make one message: mostly one or two, seldom many.
_PIECES = (1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 6)


def _integers(rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.integers(0, 1 << 31, 8192).tolist()


def _chances(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(8192).tolist()


def _population(mix: Mix, rng: np.random.Generator) -> list[str]:
    """Gives user ids, each as often as it is active, so that drawing one is one index."""
    rank = np.arange(1, mix.users + 1, dtype=np.float64)
    weight = rank**-mix.zipf
    drawn = rng.choice(mix.users, size=max(20_000, 4 * mix.users), p=weight / weight.sum())
    ids = rng.permutation(mix.users) + 10_001
    return [str(user) for user in ids[drawn].tolist()]


def _compile(text: str) -> Template:
    """Takes a text with `{slot}`s; gives its parts."""
    parts: list[str | tuple[str | Template, ...]] = []
    for place, part in enumerate(_SLOT.split(text)):
        if place % 2:
            parts.append(_entries(part))
        elif part:
            parts.append(part)
    return tuple(parts)


@cache
def _entries(slot: str) -> tuple[str | Template, ...]:
    return tuple(_compile(entry) if "{" in entry else entry for entry in phrases.WORDS[slot])


def _fill(template: Template, pick: Callable[[], int]) -> str:
    """Gives the text with every slot filled by a drawn entry."""
    filled = ""
    for part in template:
        if isinstance(part, str):
            filled += part
        else:
            entry = part[pick() % len(part)]
            filled += entry if isinstance(entry, str) else _fill(entry, pick)
    return filled
