"""The table of metrics."""

import numpy as np
from rich.console import Console

from contract.tasks import CLICK_AND_CONVERSION
from tests.training.test_evaluation import found, log
from training.evaluation import evaluate
from training.summary import metrics_table


def test_table_names_every_output_and_fits_eighty_columns() -> None:
    labels, scores, truth = log(10, 3000)
    measured = evaluate(CLICK_AND_CONVERSION, scores, labels, truth=truth, group=np.arange(3000) % 99, resamples=20)
    console = Console(width=80, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as captured:
        console.print(metrics_table(measured))
    text = captured.get()
    assert "…" not in text
    for word in ("pctr", "pcvr", "pctcvr", "given", "truth", "AUC", "GAUC", "log-loss", "NE", "ECE", "PCOC"):
        assert word in text
    assert f"{found(measured, 'pcoc', 'pctr', 'all').value:.3f}"[:4] in text
    with console.capture() as captured:
        console.print(metrics_table(()))
