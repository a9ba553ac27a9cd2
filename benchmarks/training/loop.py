"""The hand-written loop: one fused table, ready tensors in memory, and nothing else to do.

Knows torch. Does not know Fullfunnel: it is the rate that Fullfunnel's loop is measured against.
`python -m benchmarks.training.loop ARCHITECTURE LOG_FOLDER`
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.training.networks import NETWORKS
from benchmarks.training.ranking import auc
from benchmarks.training.result import Pace, Result
from benchmarks.training.settings import BATCH_ROWS, DIM, EMBEDDING_LEARNING_RATE, IDS, LEARNING_RATE, NUMBERS, cuts

EVALUATION_ROWS = 2**14
BF16 = any(f" {flag}" in text for text in [Path("/proc/cpuinfo").read_text()] for flag in ("avx512_bf16", "amx_bf16"))


class Rows(NamedTuple):
    """Ready tensors: ids int32 [B, 26] into one table, numbers [B, 6], click and conversion [B, 2]."""

    ids: Tensor
    numbers: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> "Rows":
        """Some of the rows."""
        return Rows(*(x.index_select(0, index) for x in self))


def load(folder: Path) -> Rows:
    """The tensors of a log, in time order."""
    return Rows(*(torch.from_numpy(np.load(folder / f"{name}.npy")) for name in Rows._fields))


class Table:
    """An embedding table whose rows learn by row-wise Adagrad, outside autograd."""

    def __init__(self, rows: int) -> None:
        self.weight = torch.randn(rows, DIM) * 0.01
        self.state = torch.zeros(rows)

    def look_up(self, ids: Tensor) -> Tensor:
        """ids [n] -> a leaf [n, D] that collects the gradient."""
        return self.weight.index_select(0, ids).requires_grad_()

    @torch.no_grad()
    def step(self, ids: Tensor, gradient: Tensor) -> None:
        """Sum the gradients of equal ids, each a bag of the positions sorted by id; update those rows."""
        key = ids.numpy().astype(np.int64) << 32 | np.arange(len(ids))
        key.sort()
        value, position = key >> 32, key & 0xFFFFFFFF
        start = np.flatnonzero(np.diff(value, prepend=-1))
        row = torch.from_numpy(value[start])
        total = F.embedding_bag(torch.from_numpy(position), gradient, torch.from_numpy(start), mode="sum")
        state = self.state.index_select(0, row).add_(total.square().mean(dim=1))
        self.state.index_copy_(0, row, state)
        rate = EMBEDDING_LEARNING_RATE / (state.sqrt() + 1e-8)
        self.weight.index_copy_(0, row, self.weight.index_select(0, row).addcmul_(total, rate[:, None], value=-1))


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """ESMM's: cross-entropy of click, and of click and conversion, over all impressions, in log space."""
    joint = F.logsigmoid(logits).sum(dim=1).clamp(max=-1e-7)
    conversion = labels[:, 1]
    complement = torch.log1p(-joint.exp().clamp(max=1 - 1e-7))
    ctcvr = -(conversion * joint + (1 - conversion) * complement).mean()
    return F.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 0]) + ctcvr


def forward(network: nn.Module, looked_up: Tensor, rows: Rows) -> Tensor:
    """Logits [B, 2]."""
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
        logits: Tensor = network(torch.cat([looked_up.view(len(rows.ids), -1), rows.numbers], dim=1))
    return logits.float()


def train(network: nn.Module, table: Table, rows: Rows) -> float:
    """One epoch in random order. Returns rows per second."""
    adam = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    order = torch.randperm(len(rows.ids))
    pace = Pace()
    for chosen in torch.split(order, BATCH_ROWS):
        batch = rows.take(chosen)
        ids = batch.ids.flatten()
        looked_up = table.look_up(ids)
        loss(forward(network, looked_up, batch), batch.labels).backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()
        assert looked_up.grad is not None
        table.step(ids, looked_up.grad)
        pace.add(len(chosen))
    return pace.rows_per_second()


@torch.no_grad()
def scores(network: nn.Module, table: Table, rows: Rows) -> tuple[Tensor, Tensor]:
    """pCTR and pCTCVR [B]."""
    parts = [Rows(*part) for part in zip(*(torch.split(x, EVALUATION_ROWS) for x in rows), strict=True)]
    logits = torch.cat([forward(network, table.look_up(part.ids.flatten()), part) for part in parts])
    probability = logits.sigmoid()
    return probability[:, 0], probability.prod(dim=1)


def run(architecture: str, folder: Path) -> Result:
    """Train on the log's first split, judge on its last."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    rows = load(folder)
    table = Table(int(rows.ids.max()) + 1)
    network = NETWORKS[architecture](len(IDS) * DIM + len(NUMBERS))
    validation, test = cuts(len(rows.ids))
    rate = train(network, table, Rows(*(x[:validation] for x in rows)))
    held_out = Rows(*(x[test:] for x in rows))
    click, ctcvr = scores(network, table, held_out)
    return Result(rate, None, None, auc(held_out.labels[:, 0], click), auc(held_out.labels[:, 1], ctcvr))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2])).print()
