"""torch-rechub 0.9 on the same log, as its documentation and its Ali-CCP example go about it.

Knows torch-rechub, pandas and scikit-learn, which live in an environment of their own (`environment.py`).
`python -m benchmarks.training.rechub ARCHITECTURE LOG_FOLDER`

pandas reads the file, a LabelEncoder per column numbers the values of the whole log, `DataGenerator` makes the
batches and `MTLTrainer` trains with its default optimiser. Its ESMM takes categorical features only: the numbers
reach it in quantile buckets. It puts a batch normalisation after every hidden layer, which cannot be left out.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]
import torch
from sklearn.preprocessing import LabelEncoder, MinMaxScaler  # type: ignore[import-untyped,unused-ignore]
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SparseFeature  # type: ignore[import-not-found,unused-ignore]
from torch_rechub.models.multi_task import ESMM, MMOE, PLE  # type: ignore[import-not-found,unused-ignore]
from torch_rechub.trainers import MTLTrainer  # type: ignore[import-not-found,unused-ignore]
from torch_rechub.utils.data import DataGenerator  # type: ignore[import-not-found,unused-ignore]

from benchmarks.training.ranking import auc
from benchmarks.training.result import Pace, Result
from benchmarks.training.settings import (
    BATCH_ROWS,
    DIM,
    EXPERT,
    EXPERTS,
    IDS,
    ITEM_IDS,
    ITEM_NUMBERS,
    LEARNING_RATE,
    LEVELS,
    NUMBERS,
    PRIVATE,
    SHARED,
    TIME,
    TOWER,
    TOWER_OF_ESMM,
    USER_IDS,
    USER_NUMBERS,
    cuts,
)

BUCKETS = 16


class Timed:
    """A data loader that notes when each batch after the first is asked for: when a step is done."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.pace = loader, Pace()

    def __iter__(self) -> Iterator[Any]:
        self.pace = Pace()
        for x, y in self.loader:
            yield x, y
            self.pace.add(len(y))

    def __len__(self) -> int:
        return len(self.loader)


def prepare(folder: Path, architecture: str) -> Any:
    """Read the log and encode its columns: a data frame in time order."""
    frame = pd.read_parquet(folder / "log.parquet").sort_values(TIME)
    for name in IDS:
        frame[name] = LabelEncoder().fit_transform(frame[name])
    if architecture == "esmm":
        for name in NUMBERS:
            frame[name] = pd.qcut(frame[name], BUCKETS, labels=False, duplicates="drop")
    else:
        frame[list(NUMBERS)] = MinMaxScaler().fit_transform(frame[list(NUMBERS)])
    return frame


def build(architecture: str, frame: Any) -> tuple[Any, list[str]]:
    """A model of the shared sizes, and the labels in the order in which it answers."""

    def sparse(names: tuple[str, ...]) -> list[Any]:
        return [SparseFeature(name, int(frame[name].max()) + 1, embed_dim=DIM) for name in names]

    if architecture == "esmm":
        tower = {"dims": list(TOWER_OF_ESMM)}
        user, item = sparse(USER_IDS + USER_NUMBERS), sparse(ITEM_IDS + ITEM_NUMBERS)
        return ESMM(user, item, cvr_params=tower, ctr_params=tower), ["conversion", "click", "conversion"]
    features = sparse(IDS) + [DenseFeature(name) for name in NUMBERS]
    common = {"expert_params": {"dims": list(EXPERT)}, "tower_params_list": [{"dims": list(TOWER)}] * 2}
    kinds = ["classification"] * 2
    if architecture == "mmoe":
        return MMOE(features, kinds, EXPERTS, **common), ["click", "conversion"]
    return PLE(features, kinds, LEVELS, PRIVATE, SHARED, **common), ["click", "conversion"]


def run(architecture: str, folder: Path) -> Result:
    """Train on the log's first split, validate on its second, judge on its last."""
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # pandas 3 hands out such
    started = time.perf_counter()
    frame = prepare(folder, architecture)
    model, labels = build(architecture, frame)
    columns = [*IDS, *NUMBERS]
    x, y = {name: frame[name].values for name in columns}, frame[labels].values
    validation, test = cuts(len(frame))
    splits = [slice(validation), slice(validation, test), slice(test, None)]
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = (({k: v[s] for k, v in x.items()}, y[s]) for s in splits)
    train_loader, val_loader, test_loader = DataGenerator(x_train, y_train).generate_dataloader(
        x_val=x_val, y_val=y_val, x_test=x_test, y_test=y_test, batch_size=BATCH_ROWS
    )
    timed = Timed(train_loader)
    prepared = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        trainer = MTLTrainer(
            model,
            task_types=["classification"] * len(labels),
            optimizer_params={"lr": LEARNING_RATE, "weight_decay": 1e-5},
            n_epoch=1,
            model_path=directory,
        )
        trainer.fit(timed, val_loader)
    seconds = time.perf_counter() - started
    scores = np.array(trainer.predict(trainer.model, [x for x, _ in test_loader]))
    return Result(
        timed.pace.rows_per_second(),
        seconds,
        prepared - started,
        auc(y_test[:, labels.index("click")], scores[:, labels.index("click")]),
        auc(y_test[:, -1], scores[:, -1]),
    )


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2])).print()
