import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.calibrate import check_calibration, probability
from streamapp.core.card import Calibration

margin = st.floats(-1e3, 1e3)


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    method = draw(st.sampled_from(["none", "sigmoid", "temperature", "isotonic"]))
    if method == "sigmoid":
        return Calibration("sigmoid", a=draw(st.floats(-50, -1e-3)), b=draw(st.floats(-50, 50)))
    if method == "temperature":
        return Calibration("temperature", t=draw(st.floats(1e-3, 50)))
    if method == "isotonic":
        x = sorted(draw(st.sets(st.floats(-20, 20, width=32), min_size=1, max_size=8)))
        y = sorted(draw(st.lists(st.floats(0, 1), min_size=len(x), max_size=len(x))))
        return Calibration("isotonic", x=tuple(x), y=tuple(y))
    return Calibration("none")


@settings(max_examples=200, deadline=None)
@given(calibrations(), st.lists(margin, min_size=1, max_size=30))
def test_probability_stays_in_bounds_and_keeps_the_order_of_margins(calibration: Calibration, margins: list[float]) -> None:
    check_calibration(calibration, "binary")
    column = np.sort(np.array(margins))[:, None]
    result = probability(column, "binary", calibration)[:, 0]
    assert ((result >= 0.0) & (result <= 1.0)).all()
    slack = 0.0 if calibration.method == "isotonic" else 1e-15
    assert (np.diff(result) >= -slack).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(margin, margin, margin), min_size=1, max_size=10), st.floats(0.1, 10))
def test_softmax_temperature_keeps_the_winner(rows: list[tuple[float, float, float]], t: float) -> None:
    margins = np.array(rows)
    result = probability(margins, "multi_class", Calibration("temperature", t=t))
    assert np.abs(result.sum(axis=1) - 1.0).max() < 1e-12
    best = np.arange(len(margins)), margins.argmax(axis=1)
    assert (result[best] == result.max(axis=1)).all()
