"""Profiles: one contract for the store in memory and the one on Redis, and what the packed values and the layer in the process promise."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.adapters.profiles_memory import MemoryProfiles
from streamapp.adapters.profiles_redis import Keeping, RedisProfiles, RedisProfileStore
from streamapp.core.profiles import KNOWN, UNKNOWN, WRONG, KeptProfiles, Part, ProfilePlan, ProfileRead
from streamapp.ports import Profiles, ProfileStore

PLAN = ProfilePlan.of(["follower_count", "karma", "batch_risk"])
PROFILE, RISK = PLAN.parts
NOW_MS = 1_767_225_600_000
DAY_S = 86_400.0


class Stores:
    """One store, seen from the job that writes and from workers that read."""

    def __init__(self, address: str | None) -> None:
        self._url, self._namespace = f"redis://{address}/0", f"t{uuid.uuid4().hex}"
        self._memory = MemoryProfiles(PLAN) if address is None else None
        self.store: ProfileStore = self._memory or RedisProfileStore(self._url, self._namespace)
        self._opened: list[RedisProfiles] = []

    def worker(self, keeping: Keeping | None = None) -> Profiles:
        if self._memory is not None:
            return self._memory
        self._opened.append(RedisProfiles(PLAN, self._url, self._namespace, 1000, keeping))
        return self._opened[-1]

    async def write(self, **values: float) -> None:
        """Gives one entity per name its number of followers."""
        await write(self.store, PROFILE, "follower_count", **values)
        await self.store.loaded(NOW_MS, DAY_S)

    async def close(self) -> None:
        for one in self._opened:
            await one.close()
        if isinstance(self.store, RedisProfileStore):
            await self.store.close()


async def write(store: ProfileStore, part: Part, column: str, **values: float) -> None:
    rows = np.full((len(values), len(part.columns)), np.nan)
    rows[:, part.columns.index(column)] = list(values.values())
    await store.write(part, list(values), rows, np.full(len(values), NOW_MS), DAY_S)


async def read(worker: Profiles, keys: Sequence[str]) -> ProfileRead:
    return await worker.answer(await worker.ask(keys))


def column(found: ProfileRead, name: str) -> list[float | None]:
    values = found.values[:, PLAN.columns.index(name)].tolist()
    return [None if np.isnan(value) else value for value in values]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    opened = Stores(request.getfixturevalue("redis_address") if request.param == "redis" else None)
    yield opened
    await opened.close()


async def test_every_row_gets_what_is_known_of_its_entity(stores: Stores) -> None:
    await stores.write(anna=3, ben=0.25)
    found = await read(stores.worker(), ["ben", "nobody", "anna", "ben", "é\ud800"])
    assert column(found, "follower_count") == [0.25, None, 3, 0.25, None]
    assert column(found, "karma") == [None] * 5 and found.values.shape == (5, len(PLAN.columns))
    assert found.degraded == ()


async def test_names_of_any_characters_are_names(stores: Stores) -> None:
    strange = ["", " ", "a:b", "é", "\x00", "\r\n$3", "x" * 256]
    await stores.write(**dict(zip(strange, map(float, range(7)), strict=True)))
    assert column(await read(stores.worker(), strange), "follower_count") == [0, 1, 2, 3, 4, 5, 6]


async def test_parts_are_read_together_and_written_apart(stores: Stores) -> None:
    await stores.write(anna=3, ben=4)
    await write(stores.store, RISK, "batch_risk", ben=0.9, carl=0.8)
    found = await read(stores.worker(), ["anna", "ben", "carl"])
    assert column(found, "follower_count") == [3, 4, None]
    assert column(found, "batch_risk") == [None, 0.9, 0.8]


async def test_a_value_written_for_other_columns_is_named_and_read_by_nobody(stores: Stores) -> None:
    await stores.write(anna=3)
    other = ProfilePlan.of(["follower_count", "fame", "batch_risk"]).parts[0]
    await write(stores.store, other, "follower_count", ben=7)
    found = await read(stores.worker(), ["anna", "ben"])
    assert column(found, "follower_count") == [3, None]
    assert [one.cause.removeprefix("profiles:") for one in found.degraded] == ["wrong_type"]


async def test_no_rows_and_what_is_stored(stores: Stores) -> None:
    await stores.write(anna=3)
    assert (await read(stores.worker(), [])).values.shape == (0, len(PLAN.columns))
    value = await stores.store.find(PROFILE, "anna")
    assert value is not None and len(value) == PROFILE.width
    assert await stores.store.find(PROFILE, "ben") is None


@pytest.mark.redis
async def test_an_entity_is_asked_for_once_and_known_until_its_time_is_over(redis_address: str) -> None:
    stores = Stores(redis_address)
    await stores.write(anna=3)
    worker, impatient = stores.worker(), stores.worker(Keeping(ttl_s=1e-9, unknown_ttl_s=1e-9))
    for one in (worker, impatient):
        assert column(await read(one, ["anna", "ben", "anna"]), "follower_count") == [3, None, 3]
    await stores.write(anna=4, ben=5)
    assert column(await read(worker, ["anna", "ben"]), "follower_count") == [3, None]
    assert column(await read(impatient, ["anna", "ben"]), "follower_count") == [4, 5]
    assert isinstance(worker, RedisProfiles) and worker.counted() == {"process": 3, "store": 2}
    await stores.close()


@pytest.mark.redis
async def test_questions_at_the_same_time_fly_once_per_entity(redis_address: str) -> None:
    stores = Stores(redis_address)
    await stores.write(**{f"u{number}": float(number) for number in range(100)})
    worker = stores.worker()
    groups = [[f"u{number}" for number in range(first, first + 50)] for first in (0, 25, 50, 0)]
    found = await asyncio.gather(*(read(worker, keys) for keys in groups))
    for keys, one in zip(groups, found, strict=True):
        assert column(one, "follower_count") == [float(key[1:]) for key in keys]
        assert one.degraded == ()
    await stores.close()


@pytest.mark.redis
async def test_the_question_is_on_its_way_before_anybody_waits(redis_address: str) -> None:
    """Texts may take longer than the deadline: what arrived meanwhile is taken, not given up."""
    stores = Stores(redis_address)
    await stores.write(anna=3)
    for deadline_ms in (50, 1):
        worker = RedisProfiles(PLAN, f"redis://{redis_address}/0", stores._namespace, deadline_ms)
        await worker.answer(await worker.ask(["nobody"])) if deadline_ms == 50 else None
        question = await worker.ask(["anna"])
        assert question.flight is not None
        give_up = asyncio.get_running_loop().time() + 0.2
        while asyncio.get_running_loop().time() < give_up:
            pass  # the loop is held, as a large micro-batch holds it
        if deadline_ms == 50:
            assert column(await worker.answer(question), "follower_count") == [3]
        await worker.close()
    await stores.close()


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite, finite), max_size=20), st.lists(st.none() | st.binary(max_size=50), max_size=20))
def test_what_is_packed_is_unpacked_and_what_is_not_is_told_apart(
    rows: list[tuple[float, float, float]], others: list[bytes | None]
) -> None:
    part = Part("p", ("a", "b", "c"))
    values = np.array(rows, np.float64).reshape(-1, 3)
    packed = part.pack(values, np.arange(len(rows)))
    found, updated, state = part.unpack([*packed, *others])
    assert np.array_equal(found[: len(rows)], values) and updated[: len(rows)].tolist() == list(range(len(rows)))
    wanted = [UNKNOWN if one is None or one == bytes(part.width) else WRONG for one in others]
    assert state.tolist() == [KNOWN] * len(rows) + wanted
    assert np.isnan(found[len(rows) :]).all()


def test_numbers_that_are_not_finite_are_not_known() -> None:
    part = Part("p", ("a", "b"))
    found, _, state = part.unpack(part.pack(np.array([[np.inf, 1.0], [np.nan, -np.inf]]), np.zeros(2, np.int64)))
    assert np.isnan(found).tolist() == [[True, False], [True, True]] and state.tolist() == [KNOWN, KNOWN]


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), max_size=40), st.integers(8, 20))
def test_the_layer_in_the_process_is_bounded_and_never_gives_one_entity_anothers_values(rounds: list[list[int]], most: int) -> None:
    """Against a dictionary: whatever is still kept is what was last put; what was just put is there."""
    kept = KeptProfiles(1, most)
    last: dict[str, float] = {}
    for number, names in enumerate(rounds):
        keys = [f"u{name}" for name in names]
        values = np.array([[100.0 * number + name] for name in names])
        kept.keep(keys, values, np.full(len(keys), KNOWN, np.int8), np.full(len(keys), 10.0), np.full(len(keys), 20.0))
        last |= dict(zip(keys, values[:, 0].tolist(), strict=True))
        everybody = [f"u{name}" for name in range(31)]
        slots, fresh = kept.look(everybody, 5.0)
        for key, is_fresh, (value,) in zip(everybody, fresh.tolist(), kept.rows(slots, 5.0).tolist(), strict=True):
            assert value == last[key] if is_fresh else np.isnan(value)
        assert kept.look(keys, 5.0)[1].all() and not kept.look(keys, 10.0)[1].any()
        assert np.isnan(kept.rows(slots, 20.0)).all()
        assert len(kept) <= min(most, len(last))


def test_a_pipeline_without_profile_features_has_no_parts() -> None:
    assert ProfilePlan.of([]).parts == ()
    assert [part.name for part in ProfilePlan.of(["batch_risk"]).parts] == ["risk"]
    declared: npt.NDArray[np.int64] = np.array([part.mark for part in (PROFILE, ProfilePlan.of(["is_verified"]).parts[0])])
    assert declared[0] != declared[1]
    assert ProfilePlan.of(["is_verified"]).parts[0].mark == ProfilePlan.of(["block_rate", "reply_rate"]).parts[0].mark
