"""Training with what is known of users: rows that differ in nothing else, and decisions about users that are known since."""

from __future__ import annotations

import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the train extra")

from streamapp import pipeline
from streamapp.adapters.models import latest_version, load_model
from streamapp.adapters.profiles_memory import MemoryProfiles
from streamapp.cli.profiles_file import given_profiles
from streamapp.config import load_pipeline
from streamapp.control.dataset import columns, plan_of, read_examples
from streamapp.control.fit import Recipe
from streamapp.control.history import read_history
from streamapp.control.release import assemble, load_serving
from streamapp.control.train import attacked_copies
from streamapp.core.errors import ConfigError
from streamapp.core.features.profile import USER_FEATURES
from streamapp.prefetch import reading

SPEC = load_pipeline("messages")
READ = [name for name in USER_FEATURES if name in SPEC.vector.numeric]
NOW_MS, DAY_MS = 1_767_225_600_000, 86_400_000
ORDERS = list(permutations(("see", "you", "at", "noon", "near", "the", "river")))


def row(user: int, spam: bool) -> dict[str, Any]:
    """A message of the same seven words whoever wrote it, in an order that nobody else has."""
    words = ORDERS[user * 7 % len(ORDERS)]
    return {"event_id": f"m{user}", "user_id": f"u{user}", "text": " ".join(words), "label": "spam" if spam else "ham"}


def profile(user: str, *, bad: bool, chance: float = 0.5) -> dict[str, Any]:
    """Accounts of spammers are younger and busier, in ranges that touch."""
    age, sent = (5 + 60 * chance, 40 + 300 * chance) if bad else (50 + 900 * chance, 60 * chance)
    return {"user_id": user, "account_age_days": round(age), "messages_sent_7d": round(sent), "follower_count": round(100 * chance)}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labelled messages, and the profiles of nine in ten of their users with a line that is none."""
    folder, chance = tmp_path_factory.mktemp("profiles"), np.random.default_rng(5)
    spam = (chance.random(700) < 0.4).tolist()
    labelled = lines(folder / "labelled.jsonl", [row(user, bad) for user, bad in enumerate(spam)])
    known = [profile(f"u{user}", bad=bad, chance=float(chance.random())) for user, bad in enumerate(spam) if user % 10]
    users = lines(folder / "users.jsonl", [*known, {"account_age_days": 3}])
    os.utime(users, (NOW_MS / 1000, NOW_MS / 1000))
    return labelled, users


async def believed(models: Path, *profiles: dict[str, Any]) -> list[float]:
    """Gives what a worker's own line says of one text of each user, read from the store in memory that a worker reads."""
    serving = load_serving(SPEC, models, b"test", load_model, latest_version)
    store = MemoryProfiles(serving.features.profiles)
    for path in [] if not profiles else [lines(models.parent / "live.jsonl", list(profiles))]:
        given = given_profiles(path, SPEC)
        (part, *_) = serving.features.profiles.parts
        found = given.read([one["user_id"] for one in profiles]).values
        await store.write(part, [one["user_id"] for one in profiles], found, np.full(len(profiles), given.time_ms), 60.0)
    events = [
        {"event_id": one, "user_id": one, "text": "see you at noon near the river", "event_time": NOW_MS} for one in ("good", "bad", "none")
    ]
    plan = plan_of(events, serving, NOW_MS)
    read = await reading(serving.shared, None, store)(plan, serving)  # type: ignore[arg-type]  # the pipeline shares no window
    outcome = pipeline.decide(plan, read, [serving.state.new()], serving, NOW_MS, lambda: 0.0)
    assert outcome.degraded == ()
    return [float(one) for one in outcome.probability]


async def test_without_profiles_the_model_is_at_chance_and_the_inputs_that_never_varied_are_named(
    call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    answer = call("train", "messages", "--data", str(files[0]), "--models", str(tmp_path / "models"), "--json")
    assert answer.exit_code == 0, answer.output
    metrics = json.loads(answer.stdout)["metrics"]
    assert metrics["test"]["pr_auc"] < 0.62 and set(READ) <= set(metrics["never_varied"])
    (said,) = [line for line in answer.stderr.splitlines() if "never varied" in line]
    assert all(name in said for name in READ) and said.endswith("; give --profiles FILE")
    good, bad, none = await believed(tmp_path / "models", profile("good", bad=False), profile("bad", bad=True))
    assert good == bad == none


async def test_with_profiles_it_separates_and_a_live_decision_goes_by_them(call, files: tuple[Path, Path], tmp_path: Path) -> None:
    labelled, users = files
    told = ("--data", str(labelled), "--profiles", str(users), "--models", str(tmp_path / "models"))
    answer = call("train", "messages", *told, "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["metrics"]["test"]["pr_auc"] > 0.85
    assert not set(READ) & set(found["metrics"]["never_varied"]) and "give --profiles" not in answer.stderr
    assert "line 631: user_id: names nobody" in answer.stderr
    good, bad, none = await believed(tmp_path / "models", profile("good", bad=False), profile("bad", bad=True))
    assert good < none < bad and bad - good > 0.5
    card = json.loads((Path(found["directory"]) / "card.json").read_text())
    assert card["training"]["rows_with_profile"] == 630
    assert card["training"]["files"][1] == {
        "name": "users.jsonl",
        "sha256": given_profiles(users, SPEC).file["sha256"],
        "rows": 631,
        "profiles": True,
    }
    low, high = (dict(zip(card["scaler"]["names"], card["scaler"][side], strict=True)) for side in ("low", "high"))
    assert low["account_age_days"] < 30 < high["account_age_days"]
    reference = card["reference"]["account_age_days"]
    assert reference["mean"] == pytest.approx(card["scaler"]["mean"][card["scaler"]["names"].index("account_age_days")], abs=1e-6)


def test_rows_have_what_decide_is_given_and_those_without_a_time_are_of_the_newest_profile(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    day = "2025-12-02T12:00:00Z"
    users = lines(
        tmp_path / "users.jsonl",
        [
            {"user_id": "u1", "account_created_at": day, "reply_rate": 0.25, "updated_at": NOW_MS},
            {"user_id": "u2", "account_age_days": 7, "updated_at": NOW_MS},
        ],
    )
    serving = assemble(SPEC, {}, b"test")
    texts = [{"user_id": user, "text": "hello"} for user in ("u1", "u2", "u3")]
    timed = [{**one, "event_time": NOW_MS - 3 * DAY_MS} for one in texts]
    names = ("account_age_days", "reply_rate", "reply_rate_missing", "account_age_days_missing")
    found = columns([*texts, *timed], serving, given_profiles(users, SPEC)).of(names)
    assert found.tolist() == [
        [29.0, 0.25, 0.0, 0.0], [7.0, 0.0, 1.0, 0.0], [30.0, 0.0, 1.0, 1.0],
        [26.0, 0.25, 0.0, 0.0], [4.0, 0.0, 1.0, 0.0], [30.0, 0.0, 1.0, 1.0],
    ]  # fmt: skip
    rows = [{**one, "label": "spam" if one["user_id"] == "u1" else "ham"} for one in timed]
    history = read_history([lines(tmp_path / "rows.jsonl", rows)], serving, "label", "spam", profiles=given_profiles(users, SPEC))
    assert history.of(names).tolist() == found[3:].tolist()
    assert history.files[-1]["profiles"] is True


def test_attacked_copies_have_the_profiles_of_their_originals(files: tuple[Path, Path]) -> None:
    serving, known = assemble(SPEC, {}, b"test"), given_profiles(files[1], SPEC)
    examples = read_examples([files[0]], serving, "label", "spam")
    copies = attacked_copies(examples, serving, Recipe(attacked_copies=0.2), known)
    assert copies is not None
    originals = columns(examples.events, serving, known).of(READ)[copies.origin]
    assert np.ptp(originals[:, 0]) > 100
    assert np.array_equal(copies.values[:, [SPEC.vector.numeric.index(name) for name in READ]], originals)


def test_profiles_of_nobody_in_the_rows_are_refused(call, files: tuple[Path, Path], tmp_path: Path) -> None:
    strangers = lines(tmp_path / "strangers.jsonl", [profile("somebody", bad=True)])
    answer = call("train", "messages", "--data", str(files[0]), "--profiles", str(strangers), "--models", str(tmp_path / "models"))
    assert answer.exit_code == 2 and "has no profile of anybody in these rows" in answer.stderr
    with pytest.raises(ConfigError, match="declares no profile feature"):
        given_profiles(strangers, load_pipeline("payments"))
