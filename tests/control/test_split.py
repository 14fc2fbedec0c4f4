import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.control.split import random_split, time_split

shares = st.sampled_from([(0.7, 0.15), (0.5, 0.25), (0.34, 0.33)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=200), shares, st.integers(0, 5))
def test_a_random_split_is_a_stratified_partition(labels: list[bool], shares: tuple[float, float], seed: int) -> None:
    positive = np.array(labels, np.bool_)
    split = random_split(positive, shares, seed)
    together = np.concatenate((split.train, split.validation, split.test))
    assert sorted(together.tolist()) == list(range(len(labels)))
    for label in (False, True):
        rows = np.flatnonzero(positive == label)
        assert abs(np.isin(rows, split.train).sum() - shares[0] * len(rows)) <= 0.5
    again = random_split(positive, shares, seed)
    assert all((a == b).all() for a, b in ((split.train, again.train), (split.test, again.test)))


def test_another_seed_is_another_split() -> None:
    positive = np.arange(100) % 3 == 0
    assert random_split(positive, (0.7, 0.15), 1).train.tolist() != random_split(positive, (0.7, 0.15), 2).train.tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=100), shares, st.sampled_from([0, 1, 7, 1000]))
def test_a_split_by_time_never_looks_ahead_and_leaves_the_gap_empty(times: list[int], shares: tuple[float, float], gap: int) -> None:
    time = np.array(times, np.int64)
    split = time_split(time, shares, gap)
    parts = [time[rows] for rows in (split.train, split.validation, split.test)]
    for earlier in range(3):
        for later in range(earlier + 1, 3):
            if parts[earlier].size and parts[later].size:
                assert parts[later].min() > parts[earlier].max() + (gap if earlier == 0 else 0)
    together = np.concatenate((split.train, split.validation, split.test))
    assert len(set(together.tolist())) == len(together)
    assert parts[0].size >= 1
    if gap == 0:
        assert len(together) == len(times)
