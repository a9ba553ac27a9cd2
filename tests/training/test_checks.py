"""A feature that gives a label away stops the run, an honest one does not; a task needs rows of both labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import LeakingFeature, OneClass
from contract.tasks import CLICK_AND_CONVERSION, Task
from tests.training import small
from training.checks import check_classes, check_leaks
from training.tensors import Tensors

ROWS = 1500
RANDOM = np.random.default_rng(0)
CLICK = RANDOM.random(ROWS) < 0.3
CONVERSION = CLICK & (RANDOM.random(ROWS) < 0.4)
NOISE = RANDOM.normal(0, 1, ROWS)


def prepared(tmp_path: Path, column: Any, **feature: Any) -> small.Prepared:
    """A log with one feature."""
    log = {"x": column, "click": CLICK, "conversion": CONVERSION, "t": np.arange(ROWS)}
    run = small.document(small.write(tmp_path / "log.parquet", log))
    run["features"] = [{"name": "x", "side": "item", **feature}]
    run["split"] = {"by": "time", "column": "t", "validation": 0.3, "test": 0.1}
    return small.prepare(run, tmp_path)


def leak(found: small.Prepared, tasks: tuple[Task, ...] = CLICK_AND_CONVERSION) -> None:
    check_leaks(found.tensors, found.fitted, tasks)


def text(values: NDArray[np.generic]) -> list[str]:
    return [str(value) for value in values]


@pytest.mark.parametrize(
    ("column", "feature"),
    [
        (text(CLICK), {"kind": "categorical"}),
        (text(~CLICK), {"kind": "categorical", "buckets": 64}),
        ([None if click else "no" for click in CLICK], {"kind": "categorical"}),
        ([int(click) * 7 + int(x > 0) for click, x in zip(CLICK, NOISE, strict=True)], {"kind": "categorical"}),
        (CLICK * 5.0 + 0.1 * NOISE, {"kind": "numeric"}),
        (CLICK * -5.0 + 0.1 * NOISE, {"kind": "numeric", "scale": "piecewise"}),
        ([None if click else x for click, x in zip(CLICK, NOISE, strict=True)], {"kind": "numeric"}),
        ([None if click else float(x > 1.3) for click, x in zip(CLICK, NOISE, strict=True)], {"kind": "numeric"}),
        (np.where(CLICK, np.abs(NOISE), NOISE + 50), {"kind": "numeric", "scale": "log1p"}),
    ],
)
def test_feature_that_gives_the_click_away_is_named(column: Any, feature: small.Document, tmp_path: Path) -> None:
    with pytest.raises(LeakingFeature, match=r"alone it tells 'click' with an AUC of (0\.9|1\.0)") as caught:
        leak(prepared(tmp_path, column, **feature))
    assert caught.value.place == "feature 'x'"
    assert "remove the feature" in caught.value.remedy


def test_feature_that_gives_the_conversion_of_clicked_rows_away_is_named(tmp_path: Path) -> None:
    column = np.where(CLICK, CONVERSION, NOISE > 0)
    with pytest.raises(LeakingFeature, match="tells 'conversion'"):
        leak(prepared(tmp_path, text(column), kind="categorical"))


@pytest.mark.parametrize(
    ("column", "feature"),
    [
        (text(np.arange(ROWS)), {"kind": "categorical", "min_count": 1}),
        (text(np.arange(ROWS) // 2), {"kind": "categorical", "min_count": 1, "buckets": 4096}),
        (NOISE, {"kind": "numeric"}),
        (CLICK * 1.0 + NOISE, {"kind": "numeric"}),
        (text(CLICK ^ (NOISE > 1.5)), {"kind": "categorical"}),
        ([[str(click)] for click in CLICK], {"kind": "sequence"}),
    ],
)
def test_feature_that_is_honest_passes(column: Any, feature: small.Document, tmp_path: Path) -> None:
    leak(prepared(tmp_path, column, **feature))


def test_few_positives_ring_no_alarm(tmp_path: Path) -> None:
    found = prepared(tmp_path, text(CLICK), kind="categorical")
    train, validation, test = found.tensors
    positive = np.flatnonzero(validation.labels[:, 0])
    for kept, rings in ((19, False), (20, True)):
        dropped = np.setdiff1d(np.arange(len(validation)), positive[kept:])
        tensors = (train, validation.take(dropped), test)
        if rings:
            with pytest.raises(LeakingFeature):
                check_leaks(tensors, found.fitted, CLICK_AND_CONVERSION)
        else:
            check_leaks(tensors, found.fitted, CLICK_AND_CONVERSION)


def labelled(*labels: tuple[int, int]) -> Tensors:
    return Tensors({}, np.zeros((len(labels), 0), np.float32), np.array(labels, np.uint8), np.arange(len(labels)))


BOTH = labelled((0, 0), (1, 0), (1, 1))


def test_labels_of_both_kinds_in_train_and_validation_pass() -> None:
    check_classes((BOTH, BOTH, labelled((0, 0))), CLICK_AND_CONVERSION)


@pytest.mark.parametrize(
    ("labels", "task", "fact"),
    [
        (labelled((0, 0), (0, 0)), "click", "only negative rows in the {} split"),
        (labelled((1, 0), (1, 1)), "click", "only positive rows in the {} split"),
        (labelled((0, 0), (1, 0)), "conversion", "only negative rows in the {} split where click holds"),
        (labelled((0, 0), (1, 1)), "conversion", "only positive rows in the {} split where click holds"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_task_with_one_class_is_named(split: str, labels: Tensors, task: str, fact: str) -> None:
    tensors = (labels, BOTH, BOTH) if split == "train" else (BOTH, labels, BOTH)
    with pytest.raises(OneClass) as caught:
        check_classes(tensors, CLICK_AND_CONVERSION)
    assert (caught.value.place, caught.value.fact) == (f"task {task!r}", fact.format(split))
    assert "larger share" in caught.value.remedy


def test_conversion_of_its_own_needs_no_click() -> None:
    apart = (Task(name="click", label="click"), Task(name="conversion", label="conversion"))
    check_classes((labelled((0, 0), (1, 0), (0, 1)), BOTH, BOTH), apart)
