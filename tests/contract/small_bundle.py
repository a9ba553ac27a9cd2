"""A manifest with every field filled in, and the files of a bundle; nobody could score with it."""

import hashlib
import json
from typing import Any

from contract.bundle import CARD, GOLDEN, MODEL
from contract.features import Categorical, Numeric, Sequence
from contract.manifest import (
    FORMAT_VERSION,
    UNSEALED,
    Calibration,
    FeatureReference,
    Golden,
    Input,
    Manifest,
    Metric,
    Provenance,
    Reference,
    Rows,
    ScoreReference,
)
from contract.tasks import CLICK_AND_CONVERSION, outputs

GOLDEN_ROWS = Golden(
    rows=Rows(
        user={"city": ["Berlin"], "recent": [["i1", "i2"]]},
        candidates={"item_id": ["i1", None], "price": [9.5, None]},
        row_user=[0, 0],
    ),
    scores={"pctr": [0.5, 0.25], "pcvr": [0.5, 0.5], "pctcvr": [0.25, 0.125]},
)
FILES = {MODEL: bytes(range(256)) * 4, GOLDEN: GOLDEN_ROWS.model_dump_json().encode(), CARD: b"<p>a card</p>"}
MANIFEST_OF_FILES = Manifest(
    format_version=FORMAT_VERSION,
    name="small",
    version="1",
    tasks=CLICK_AND_CONVERSION,
    features=(
        Categorical(name="city", side="user", dtype="string", missing="default", default="Berlin"),
        Sequence(name="recent", side="user", dtype="string", share="item_id"),
        Categorical(name="item_id", side="item", dtype="string", buckets=1000),
        Numeric(name="price", side="item", scale="log1p"),
    ),
    inputs=(
        Input(name="city", dtype="string", side="user", shape=("users",)),
        Input(name="recent", dtype="string", side="user", shape=("users", "length")),
        Input(name="item_id", dtype="string", side="item", shape=("candidates",)),
        Input(name="price", dtype="float32", side="item", shape=("candidates",)),
    ),
    outputs=outputs(CLICK_AND_CONVERSION),
    architecture="ple",
    parameters=1234,
    calibration=(Calibration(task="click", slope=1.0, intercept=-0.1),),
    reference=Reference(
        rows=100,
        features=(FeatureReference(name="city", missing_rate=0.1, unknown_rate=0.2),),
        scores=(ScoreReference(name="pctr", mean=0.04, quantiles=(0.0, 0.5, 1.0)),),
    ),
    metrics=(Metric(name="auc", output="pctr", rows="all", value=0.75, low=0.7, high=0.8),),
    parity=1e-8,
    provenance=Provenance(
        run={"name": "small", "zeros": UNSEALED}, seed=0, libraries={"numpy": "2"}, data_fingerprint=UNSEALED
    ),
)


def sealed(document: dict[str, Any]) -> bytes:
    """A manifest document of whatever content, with the checksum that belongs to it."""
    text = json.dumps({**document, "checksum": UNSEALED})
    before, _, after = text.rpartition(UNSEALED)
    return (before + hashlib.sha256(text.encode()).hexdigest() + after).encode()
