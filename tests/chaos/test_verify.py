"""The judge of chaos is judged: it agrees with the program where nothing went wrong, and finds every planted fault."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chaos
from chaos.expect import COUNTS, Recount
from chaos.stream import Stream
from chaos.verify import Asked, Output, Place, Tally, invented, judge, judge_textbook
from streamapp.cli.serve import load
from streamapp.config import load_pipeline, load_settings
from tests.chaos.decided import decided

Answers = dict[Place, list[Output]]


@pytest.fixture(scope="module")
def played() -> tuple[dict[Place, Asked], Answers]:
    """600 records of the chaos pipeline on two partitions, with what the program answers and what the recount says."""
    spec = load_pipeline(str(Path(chaos.__file__).parent / "counts.toml"))
    serving = load(load_settings({}, environ={}), spec)
    recount, asked, answers = Recount(COUNTS), {}, {}
    for partition in (0, 1):
        records = Stream(partition, memo=0.01).take(300)
        for offset, (key, value) in enumerate(records):
            asked[partition, offset] = Asked(key, value, recount.take(partition, offset, key, value))
        answers |= decided(serving, partition, records)
    return asked, answers


def test_the_recount_and_the_program_agree(played: tuple[dict[Place, Asked], Answers]) -> None:
    asked, answers = played
    tally = judge(asked, answers)
    assert tally.broken(repeats=False) == [], tally.examples
    assert (tally.events, tally.verdicts + tally.letters) == (600, 600)
    assert tally.letters > 5 and tally.late > 5 and any(one.expected.copy_of is not None for one in asked.values())
    assert not invented(asked, answers).invented


def said(output: Output, **change: Any) -> Output:
    return output._replace(value=json.dumps(json.loads(output.value or b"") | change).encode())


def lose(many: list[Output]) -> None:
    del many[0]


def repeat(many: list[Output]) -> None:
    many.append(many[0])


def contradict(many: list[Output]) -> None:
    many.append(said(many[0], decision_id="another"))


def rescore(many: list[Output]) -> None:
    many[:] = [said(one, score=0.123) for one in many]


def misroute(many: list[Output]) -> None:
    many[:] = [one._replace(role="block" if one.role == "approve" else "approve") if one.role != "decisions" else one for one in many]


def miscount(many: list[Output]) -> None:
    for at, one in enumerate(many):
        if one.role == "decisions":
            features = json.loads(one.value or b"")["features"]
            many[at] = said(one, features=features | {"user_1h_sum_amount": features["user_1h_sum_amount"] + 0.01})


def misplace_key(many: list[Output]) -> None:
    many[0] = many[0]._replace(key=b"somebody")


def punctual(many: list[Output]) -> None:
    many[:] = [said(one, flags=["late"]) for one in many]


def bury(many: list[Output]) -> None:
    many[:] = [one._replace(role="dead-letters") for one in many[:1]]


@pytest.mark.parametrize(
    ("plant", "counted"),
    [
        (lose, {"lost"}), (repeat, {"duplicated"}), (contradict, {"duplicated", "contradictory"}), (rescore, {"wrong"}),
        (misroute, {"wrong"}),
        (miscount, {"wrong"}), (misplace_key, {"wrong"}), (punctual, {"wrong"}), (bury, {"lost", "wrong"}),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(
    played: tuple[dict[Place, Asked], Answers], plant: Callable[[list[Output]], None], counted: set[str]
) -> None:
    asked, answers = played
    copied = {one.expected.copy_of for one in asked.values()}
    place = next(
        at
        for at, one in asked.items()
        if not one.expected.dead and not one.expected.late and one.expected.copy_of is None and at[1] not in copied
    )
    spoilt = {at: list(many) for at, many in answers.items()}
    plant(spoilt[place])
    tally = judge(asked, spoilt)
    names = {"lost", "duplicated", "contradictory", "wrong", "invented"}
    assert {name for name in names if getattr(tally, name)} == counted
    assert tally.examples and tally.broken(repeats=False)
    assert all(getattr(tally, name) == 1 for name in counted)


def test_a_copy_that_is_answered_otherwise_contradicts(played: tuple[dict[Place, Asked], Answers]) -> None:
    asked, answers = played
    place = next(at for at, one in asked.items() if one.expected.copy_of is not None)
    tally = judge(asked, {**answers, place: [said(one, decision_id="another") for one in answers[place]]})
    assert (tally.contradictory, tally.wrong, tally.lost) == (1, 0, 0)


def test_an_answer_to_nothing_is_invented(played: tuple[dict[Place, Asked], Answers]) -> None:
    asked, answers = played
    assert invented(asked, {**answers, (3, 0): answers[0, 0]}).invented == len(answers[0, 0])


def test_repeats_are_let_be_where_they_are_expected() -> None:
    assert Tally(duplicated=2).broken(repeats=True) == []
    assert Tally(duplicated=2, contradictory=1).broken(repeats=True) == ["1 contradictory"]


def test_the_textbook_app_is_counted_by_event_id() -> None:
    def answer(seen: int, probability: float = 0.5) -> Output:
        return Output("approve", b"u", json.dumps({"verdict": "approve", "probability": probability, "seen": seen}).encode(), 0)

    answers = {"a": [answer(1)], "b": [answer(3), answer(3)], "c": [answer(3, 0.1), answer(3, 0.2)]}
    tally = judge_textbook(dict.fromkeys("abcd", ()), answers, {"a": 1, "b": 2, "c": 3, "d": 4})
    assert (tally.events, tally.verdicts, tally.lost, tally.duplicated, tally.contradictory, tally.wrong) == (4, 5, 1, 2, 1, 1)


def test_the_verifier_shares_no_code_with_the_program() -> None:
    for file in Path(chaos.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in getattr(node, "names", ())]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not any(name.split(".")[0] == "streamapp" for name in names), f"{file.name} imports {names}"
