"""Charts: axes, ticks, and what becomes of values that cannot be drawn."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from training.charts import Axis, percent, ratio_axis, ratio_dot, reliability_chart, significant
from training.evaluation import Bin, Curve, Histogram


def test_numbers_keep_their_digits_and_never_an_exponent() -> None:
    assert [percent(x) for x in (0, 1e-7, 0.0012, 0.5, 1)] == ["0 %", "0.0000100 %", "0.120 %", "50.0 %", "100 %"]
    assert [significant(x, 3) for x in (0.0004567, 12345.0, -0.5)] == ["0.000457", "12345", "-0.500"]


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize(
    ("low", "high"), [(1e-6, 0.9), (0.002, 0.15), (0.03, 0.05), (0.2, 0.9), (1e-5, 2e-4), (0.5, 0.500001)]
)
def test_ticks_are_few_round_and_inside(low: float, high: float, logarithmic: bool) -> None:
    ticks = Axis(low, high, 0, 100, logarithmic).ticks(5)
    assert 2 <= len(ticks) <= 5
    assert ticks == sorted(ticks)
    assert all(low * (1 - 1e-8) <= tick <= high * (1 + 1e-8) for tick in ticks)


def test_axis_maps_ends_and_the_middle_and_clips() -> None:
    axis = Axis(0.01, 1, 0, 200, True)
    assert [axis.at(x) for x in (0.01, 0.1, 1, 0, 5)] == pytest.approx([0, 100, 200, 0, 200])


def test_bin_without_positives_is_hollow_at_the_bottom() -> None:
    bins = (Bin(100, 0.001, 0.0, 0.0, 0.03), Bin(100, 0.02, 0.02, 0.01, 0.06), Bin(100, 0.2, 0.25, 0.1, 0.4))
    curve = Curve("p", "all", bins, Histogram((0.001, 0.01, 0.1), (0.5, 0.5), (0.1, 0.9)))
    circles = [
        dict(node.attrib)
        for node in ElementTree.fromstring(reliability_chart([curve], key="k", title="t")).iter("circle")
    ]
    assert [("hollow" in one["class"]) for one in circles] == [True, False, False]
    assert circles[0]["cy"] == "230"


def test_constant_scores_are_still_a_chart() -> None:
    curve = Curve("p", "all", (Bin(10, 0.0, 0.0, 0.0, 0.3),), Histogram((), (), ()))
    for observed in (0.0, 0.4, 1.0):
        one = replace(curve, bins=(Bin(10, observed, observed, 0.0, 1.0),))
        ElementTree.fromstring(reliability_chart([one], key="k", title="t"))


def test_ratio_axis_reaches_every_ratio_and_marks_what_goes_on() -> None:
    assert ratio_axis([1.0, None]).high == 1.25
    assert ratio_axis([0.3, 1.1]).high == 5
    assert ratio_axis([900.0]).high == 10
    axis = ratio_axis([1.1])
    assert "path" not in ratio_dot(axis, 1.1, 1.0, 1.2)
    assert ratio_dot(axis, 1.1, 0.5, None).count("<path") == 2
    assert "circle" not in ratio_dot(axis, None, None, None)


def test_title_is_escaped() -> None:
    curve = Curve("p", "all", (Bin(10, 0.1, 0.1, 0.0, 0.3),), Histogram((), (), ()))
    root = ElementTree.fromstring(reliability_chart([curve], key="k", title="<b>&"))
    assert root[0].text == "<b>&"
