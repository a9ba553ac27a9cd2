"""Whether a run file that a converter left loads, reads its log and learns, in one epoch of a tiny network."""

import tomllib
from pathlib import Path

import torch

from models.ranker import Ranker
from tests.training import small
from training import loop
from training.run import load_run
from training.split import TRAIN, VALIDATION


def learn(out: Path) -> small.Prepared:
    """Train on `out`/run.toml, as it is but for the sizes, and return what stood before training."""
    path = out / "run.toml"
    load_run(path)
    document = tomllib.loads(path.read_text())
    document["model"] = {"architecture": "separate_towers", "tower": [4]}
    document["training"] = {"objective": "entire_space", "epochs": 1, "batch_rows": 64, "threads": 1}
    scratch = out.parent / f"{out.name}-scratch"
    scratch.mkdir()
    log = small.prepare(document, scratch)
    torch.manual_seed(0)
    ranker = Ranker(log.fitted.inputs, log.run.model, len(log.run.tasks))
    before = loop.predict_logits(ranker, log.tensors[VALIDATION])
    history = loop.train(
        ranker,
        log.tensors[TRAIN],
        log.tensors[VALIDATION],
        log.run.tasks,
        log.run.training,
        seed=0,
        on_progress=small.nothing,
    )
    assert history.evaluations
    assert (loop.predict_logits(ranker, log.tensors[VALIDATION]) != before).any()
    return log
