"""The runs of real logs pass through every stage, in a few epochs: published, measured, and scored as served."""

import os
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import CARD, Bundle
from service.scoring.scorer import Scorer
from training.pipeline import train
from training.run import load_run

RUNS = Path(__file__).parents[2] / "runs"


def trained(name: str, directory: Path, *overrides: str) -> tuple[Bundle, Scorer]:
    """The bundle of runs/NAME.toml, published in `directory`, and its scorer, which has checked the golden rows."""
    if not os.environ.get("FULLFUNNEL_REAL_DATA"):
        pytest.skip(
            "FULLFUNNEL_REAL_DATA is not set: set it to the folder that holds email_campaign/ and aliexpress_2k/"
        )
    bundle = train(load_run(RUNS / f"{name}.toml", [*overrides, "evaluation.resamples=20"]), directory / name)
    return bundle, Scorer.load(directory / name)


def figure(bundle: Bundle, name: str, output: str) -> float:
    return next(m.value for m in bundle.manifest.metrics if (m.name, m.output) == (name, output))


def test_email_funnel_trains_end_to_end(tmp_path: Path) -> None:
    bundle, scorer = trained("email", tmp_path, "training.epochs=2")
    assert figure(bundle, "auc", "p_opened") > 0.75
    assert figure(bundle, "auc", "p_acknowledged") > 0.75
    assert figure(bundle, "auc", "p_acknowledged_given_opened") > 0.55
    assert figure(bundle, "pcoc", "p_opened") == pytest.approx(1.0, abs=0.15)
    scores = scorer.score({"Customer_Location": ["E", None]}, {"Word_Count": [440, 10]}, np.arange(2))
    assert scores["p_acknowledged"] == pytest.approx(scores["p_opened"] * scores["p_acknowledged_given_opened"])


def test_aliexpress_sample_trains_end_to_end_and_its_card_says_how_little_it_tells(tmp_path: Path) -> None:
    bundle, scorer = trained("aliexpress", tmp_path, "training.epochs=2")
    assert {m.output for m in bundle.manifest.metrics} == {"pctr", "pcvr", "pctcvr"}
    card = bundle.files[CARD].decode()
    assert "click: learned from 23, calibrated on 6, measured on 43 positive rows" in card
    assert "conversion: learned from 8, calibrated on 2, measured on 10 positive rows" in card
    assert 0 < float(scorer.score({"categorical_7": [4]}, {"numerical_52": [0.3]})["pctcvr"][0]) < 0.5
