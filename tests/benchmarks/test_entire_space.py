from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.entire_space import RUN, Figures, Outcome, ceiling, clicked_rows_only, on_log, table
from contract.tasks import outputs
from training.pipeline import read_log
from training.run import Run, load_run
from training.simulator import LOG, TRUTH, simulate
from training.split import SPLITS, TEST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("entire_space")
    simulate(directory, rows=6000, seed=1, days=2)
    return directory


@pytest.fixture(scope="module")
def whole(folder: Path) -> Run:
    return on_log(load_run(RUN), folder, seed=1)


@pytest.fixture(scope="module")
def clicked(whole: Run, folder: Path) -> Run:
    return clicked_rows_only(whole, folder)


def outcome(seed: int, clicked: tuple[float, float], entire: tuple[float, float]) -> Outcome:
    figures = (Figures(auc, auc - 0.01, auc + 0.01, pcoc) for auc, pcoc in (clicked, (0.5, 2.0), entire))
    return Outcome(seed, tuple(figures), 0.9)


def test_the_clicked_model_trains_on_clicks_and_is_tested_on_every_row_the_others_are(
    whole: Run, clicked: Run, folder: Path
) -> None:
    log, split = pq.read_table(folder / LOG), read_log(whole).split
    for code, name in enumerate(SPLITS):
        rows, kept = log.filter(split == code), pq.read_table(folder / f"{name}.parquet")
        assert kept.equals(rows if code == TEST else rows.filter(pc.field("click") == 1))
        assert kept.num_rows > 0
    sources = [Path(source.path).name for source in read_log(clicked).sources]
    assert sources == [f"{name}.parquet" for name in SPLITS]


def test_the_clicked_model_has_the_same_features_and_network_and_answers_for_conversion_alone(
    whole: Run, clicked: Run
) -> None:
    assert (clicked.features, clicked.model, clicked.seed) == (whole.features, whole.model, whole.seed)
    assert [output.name for output in outputs(clicked.tasks)] == ["p_conversion"]
    assert clicked.evaluation.truth is not None
    assert clicked.evaluation.truth.columns == {"p_conversion": "true_pcvr"}


def test_no_column_of_the_truth_is_a_feature(whole: Run, folder: Path) -> None:
    known = set(pq.read_schema(folder / TRUTH).names)
    assert not known & {feature.name for feature in whole.features}


def test_nobody_ranks_better_than_the_truth(whole: Run, folder: Path) -> None:
    assert 0.7 < ceiling(whole, folder) < 0.95


def test_the_table_counts_the_seeds_in_which_entire_space_is_ahead() -> None:
    text = table(
        [
            outcome(1, clicked=(0.70, 1.5), entire=(0.72, 0.8)),
            outcome(2, clicked=(0.71, 1.1), entire=(0.70, 0.7)),
            outcome(3, clicked=(0.70, 1.3), entire=(0.75, 1.4)),
        ]
    ).splitlines()
    assert "higher AUC in 2 of 3 seeds, PCOC nearer 1 in 1 of 3" in text[-1]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in text[:-2]]
    assert len({len(row) for row in cells}) == 1
    assert cells[2][:2] == ["1", "0.7000 (0.6900 to 0.7100)"]
    assert cells[-1] == ["mean", "0.7033", "0.5000", "0.7233", "0.9000", "1.300", "2.000", "0.967"]
