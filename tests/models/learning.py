"""A network that has gone through the trainer's loop for a few steps, on a log made once."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contract.tasks import CLICK_AND_CONVERSION
from models.architecture import Options
from models.ranker import Ranker
from tests.training import small
from training import loop
from training.loop import History
from training.run import TrainingOptions
from training.split import TEST, TRAIN, VALIDATION

STEPS = {"batch_rows": 64, "learning_rate": 0.003, "epochs": 2, "patience": 100, "threads": 1}


@cache
def log() -> small.Prepared:
    """A log whose clicks and conversions can be learned."""
    with TemporaryDirectory() as directory:
        run = small.document(small.write(Path(directory) / "log.parquet", small.columns(2400)))
        run["features"] = [small.feature(run, name) for name in ("member", "age", "item_id", "price")]
        return small.prepare(run, Path(directory))


def untrained(options: Options, seed: int = 0) -> Ranker:
    """The network that training starts from."""
    torch.manual_seed(seed)
    return Ranker(log().fitted.inputs, options, len(CLICK_AND_CONVERSION))


def trained(options: Options, **training: Any) -> tuple[Ranker, History]:
    """The network after some steps."""
    ranker, chosen = untrained(options), TrainingOptions.model_validate(STEPS | training)
    rows, validation = log().tensors[TRAIN], log().tensors[VALIDATION]
    history = loop.train(ranker, rows, validation, CLICK_AND_CONVERSION, chosen, seed=0, on_progress=small.nothing)
    return ranker, history


def logits(ranker: Ranker) -> NDArray[np.float32]:
    """On the held-out rows [rows, T]."""
    return loop.predict_logits(ranker, log().tensors[TEST])
