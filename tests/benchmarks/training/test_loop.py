from pathlib import Path

import pytest
import torch

from benchmarks.training import loop
from benchmarks.training.networks import NETWORKS
from benchmarks.training.ranking import auc
from benchmarks.training.settings import DIM, EMBEDDING_LEARNING_RATE, IDS, NUMBERS


def test_a_step_of_the_table_is_row_wise_adagrad_on_summed_gradients() -> None:
    torch.manual_seed(0)
    table = loop.Table(50)
    expected, state = table.weight.double(), torch.zeros(50, dtype=torch.float64)
    for _ in range(3):
        ids, gradient = torch.randint(0, 40, (200,), dtype=torch.int32), torch.randn(200, DIM)
        total = torch.zeros(50, DIM, dtype=torch.float64).index_add_(0, ids, gradient.double())
        state += total.square().mean(dim=1)
        expected -= EMBEDDING_LEARNING_RATE * total / (state.sqrt() + 1e-8)[:, None]
        table.step(ids, gradient)
    torch.testing.assert_close(table.weight.double(), expected, atol=1e-6, rtol=0)


def test_the_loss_is_cross_entropy_of_click_and_of_both_over_all_rows() -> None:
    logits = torch.randn(64, 2)
    click = (torch.rand(64) < 0.5).float()
    labels = torch.stack([click, click * (torch.rand(64) < 0.5)], dim=1)
    pctr, pcvr = logits.sigmoid().unbind(dim=1)
    entropy = torch.nn.functional.binary_cross_entropy
    expected = entropy(pctr, labels[:, 0]) + entropy(pctr * pcvr, labels[:, 1])
    torch.testing.assert_close(loop.loss(logits, labels), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_the_rows_it_sees(name: str, log_folder: Path) -> None:
    torch.manual_seed(0)
    rows = loop.Rows(*(x[:4096] for x in loop.load(log_folder)))
    table = loop.Table(int(rows.ids.max()) + 1)
    network = NETWORKS[name](len(IDS) * DIM + len(NUMBERS))
    before, _ = loop.scores(network, table, rows)
    for _ in range(12):
        assert loop.train(network, table, rows) > 0
    click, ctcvr = loop.scores(network, table, rows)
    assert auc(rows.labels[:, 0], before) < 0.6 < 0.8 < auc(rows.labels[:, 0], click)
    assert (ctcvr <= click).all()


def test_a_run_judges_on_the_last_tenth(log_folder: Path) -> None:
    result = loop.run("esmm", log_folder)
    assert result.seconds is None
    assert result.rows_per_second > 0
    assert 0 < result.auc_click < 1
