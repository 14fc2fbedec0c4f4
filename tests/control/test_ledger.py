"""The ledger notices what is missing, what came twice, and how verdicts compare with labels."""

from __future__ import annotations

import pytest

from streamapp.control.ledger import Ledger
from streamapp.core.route import APPROVE, BLOCK, REVIEW


def filled(rows: list[tuple[str | None, int]]) -> Ledger:
    ledger = Ledger()
    for offset, (label, route) in enumerate(rows):
        ledger.send(0, offset, label, None)
        ledger.decide(0, offset, route)
    return ledger


def test_events_are_verdicts_plus_dead_letters() -> None:
    ledger = Ledger()
    for offset in range(3):
        ledger.send(1, offset, "ham", "invalid_json" if offset == 2 else None)
    assert (ledger.waiting, ledger.accounted) == (3, False)
    assert ledger.decide(1, 0, APPROVE)
    assert ledger.decide(1, 1, BLOCK)
    assert (ledger.waiting, ledger.accounted) == (1, False)
    assert ledger.reject(1, 2, "invalid_json")
    assert (ledger.waiting, ledger.accounted) == (0, True)
    figures = ledger.figures()
    assert (figures["events"], figures["verdicts"], figures["dead_letters"]) == (3, 2, 1)
    assert figures["routes"] == {"approve": 1, "review": 0, "block": 1}
    assert figures["dead_letters_by_reason"] == figures["broken_on_purpose"] == {"invalid_json": 1}


def test_an_answer_may_be_read_before_the_send_is_acknowledged() -> None:
    ledger = Ledger()
    ledger.decide(0, 5, REVIEW)
    for offset in range(6):
        ledger.send(0, offset, None, None)
        if offset < 5:
            ledger.decide(0, offset, APPROVE)
    assert ledger.accounted


def test_two_answers_to_one_event_do_not_make_up_for_a_missing_one() -> None:
    ledger = Ledger()
    ledger.send(0, 0, None, None)
    ledger.send(0, 1, None, None)
    assert ledger.decide(0, 0, BLOCK)
    assert not ledger.decide(0, 0, BLOCK)
    assert not ledger.reject(0, 0, "invalid_json")
    assert (ledger.repeated, ledger.accounted, ledger.answered) == (2, False, 1)


def test_an_answer_to_an_event_nobody_sent_is_not_accounted() -> None:
    ledger = Ledger()
    ledger.send(0, 0, None, None)
    ledger.decide(0, 7, BLOCK)
    assert not ledger.accounted


def test_precision_and_recall_against_labels() -> None:
    rows = [("spam", BLOCK)] * 6 + [("spam", REVIEW)] * 3 + [("spam", APPROVE)] + [("ham", APPROVE)] * 17
    rows += [("ham", REVIEW)] * 1 + [("ham", BLOCK)] * 2 + [(None, BLOCK)] * 4
    quality = filled(rows).quality()
    assert quality is not None
    assert (quality.labelled, quality.bad) == (30, 10)
    assert quality.precision_block == pytest.approx(6 / 8)
    assert quality.recall_block == pytest.approx(0.6)
    assert quality.precision_block_or_review == pytest.approx(9 / 12)
    assert quality.recall_block_or_review == pytest.approx(0.9)
    assert quality.good_in_review == pytest.approx(1 / 20)


def test_without_labels_there_is_no_quality_and_without_cases_no_share() -> None:
    assert filled([(None, BLOCK)]).quality() is None
    quality = filled([("ham", APPROVE)]).quality()
    assert quality is not None
    assert (quality.precision_block, quality.recall_block) == (None, None)
