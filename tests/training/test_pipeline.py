"""A run publishes a bundle that repeats to the byte; bad input ends in one clear message and leaves nothing behind."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cli.main import main
from contract.bundle import read_bundle
from contract.errors import (
    BundleExists,
    BundleTooNew,
    ColumnMissing,
    ColumnTypeInvalid,
    DataInvalid,
    EmptySplit,
    FullfunnelError,
    LabelInvalid,
    LabelWithoutParent,
    LeakingFeature,
    MixedTypes,
    OneClass,
    RunInvalid,
    SourceMissing,
    TargetUnwritable,
    UnknownKey,
    UselessFeature,
    ValueMissing,
)
from service.scoring.scorer import Scorer
from tests.training import small
from tests.training.conftest import Trained
from training.pipeline import train
from training.run import load_run, parse_run

PROJECT = Path(__file__).parents[2]

# ------------------------------------------------------------------ a whole run


def test_published_bundle_is_whole_and_alone(trained: Trained) -> None:
    assert read_bundle(trained.directory) == trained.bundle
    assert [path.name for path in trained.directory.parent.iterdir()] == [trained.directory.name]


def test_manifest_says_what_was_trained(trained: Trained) -> None:
    manifest, run = trained.bundle.manifest, trained.run
    assert (manifest.name, manifest.version, manifest.tasks) == (run.name, run.version, run.tasks)
    assert [feature.name for feature in manifest.features] == [feature.name for feature in run.features]
    assert [output.name for output in manifest.outputs] == ["pctr", "pcvr", "pctcvr"]
    assert manifest.architecture == "separate_towers"
    assert manifest.parameters > 1000
    assert 0 < manifest.parity <= 1e-6
    assert [fitted.task for fitted in manifest.calibration] == ["click", "conversion"]
    assert parse_run(manifest.provenance.run) == run


def test_metrics_cover_each_output_on_its_rows_and_against_the_truth(trained: Trained) -> None:
    metrics = trained.bundle.manifest.metrics
    assert {(metric.output, metric.rows) for metric in metrics} == {
        ("pctr", "all"),
        ("pctr", "truth"),
        ("pcvr", "given"),
        ("pcvr", "truth"),
        ("pctcvr", "all"),
    }
    assert {"auc", "gauc", "log_loss", "normalised_entropy", "ece", "pcoc"} <= {metric.name for metric in metrics}
    assert all(metric.low <= metric.value <= metric.high for metric in metrics)


def test_bundle_scores_its_golden_rows_in_the_service(trained: Trained) -> None:
    assert Scorer.load(trained.directory).digest == trained.bundle.digest
    pctr, pcvr, pctcvr = (np.array(trained.bundle.golden.scores[name]) for name in ("pctr", "pcvr", "pctcvr"))
    assert np.abs(pctcvr - pctr * pcvr).max() <= 1e-7


def test_one_seed_gives_one_digest(trained: Trained, simulated_run: small.Document, tmp_path: Path) -> None:
    output = io.StringIO()
    with contextlib.chdir(tmp_path):
        bundle = train(parse_run(simulated_run), tmp_path / "again", Console(file=output, width=200))
    assert bundle.digest == trained.bundle.digest
    stages = [line.split()[0] for line in output.getvalue().splitlines() if line.startswith("  ") and " s" in line]
    assert stages[:9] == ["split", "read", "encode", "train", "calibrate", "evaluate", "export", "check", "publish"]
    assert output.getvalue().splitlines()[-1] == f"{tmp_path / 'again'}  {bundle.digest}"


def test_another_seed_and_log_in_three_files_give_another_bundle(
    trained: Trained, simulated_run: small.Document, tmp_path: Path
) -> None:
    table = pq.read_table(simulated_run["data"]["path"])
    for name, start, stop in (("train", 0, 3600), ("validation", 3600, 4800), ("test", 4800, 6000)):
        pq.write_table(table.slice(start, stop - start), tmp_path / f"{name}.parquet")
    keys = simulated_run | {
        "seed": 2,
        "data": {
            "path": "train.parquet",
            "validation_path": "validation.parquet",
            "test_path": "test.parquet",
        },
        "bundle": {"directory": "bundles"},
        "training": {"batch_rows": 256, "threads": 1, "negative_rate": 0.3, "epochs": 2},
        "evaluation": {"resamples": 10},
    }
    with contextlib.chdir(tmp_path):
        bundle = train(parse_run(keys))
    assert read_bundle(tmp_path / "bundles" / "simulated" / "1").digest == bundle.digest != trained.bundle.digest
    pcoc = {(m.output, m.rows): m for m in bundle.manifest.metrics if m.name == "pcoc"}
    assert pcoc["pctr", "all"].low < 1 < pcoc["pctr", "all"].high
    assert pcoc["pctr", "all"].value < 1.5  # 1 / .3 = 3.3 without the correction


# ------------------------------------------------------------------ bad input

ROWS = small.ROWS


@dataclass
class Attempt:
    """What a case may spoil: the log's columns, the run's keys, and the files once written."""

    log: small.Columns
    run: small.Document
    folder: Path
    spoil_files: Callable[[], None] = lambda: None

    def set(self, name: str, row: int, value: Any) -> None:
        """One cell of the log."""
        values = self.log[name].to_pylist()
        values[row] = value
        self.log[name] = pa.array(values)

    def write(self) -> Path:
        """The log and the run file."""
        small.write(self.folder / "log.parquet", self.log)
        self.spoil_files()
        path = self.folder / "run.toml"
        path.write_text(small.as_toml(self.run))
        return path


def rename_feature(attempt: Attempt) -> None:
    small.feature(attempt.run, "price")["name"] = "prize"


def truncate(attempt: Attempt) -> None:
    def spoil() -> None:
        log = attempt.folder / "log.parquet"
        log.write_bytes(log.read_bytes()[:-100])

    attempt.spoil_files = spoil


def refuse_missing(attempt: Attempt) -> None:
    small.feature(attempt.run, "age")["missing"] = "refuse"


def mixed_sequence(attempt: Attempt) -> None:
    kinds, numbers = pa.array([0] * ROWS, pa.int8()), pa.array(range(ROWS))
    union = pa.UnionArray.from_sparse(kinds, [numbers, numbers.cast(pa.string())])
    table = pa.table(attempt.log | {"recent": pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), union)})
    path = attempt.folder / "log.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    attempt.run["data"]["path"] = str(path)


def mixed_files(attempt: Attempt) -> None:
    small.write(attempt.folder / "more.parquet", attempt.log | {"user_id": pa.array(range(ROWS))})
    attempt.run["data"]["path"] = str(attempt.folder / "*.parquet")


def csv_that_turns_to_text(attempt: Attempt) -> None:
    columns = {"id": ["7"] * (ROWS - 1) + ["seven"], "text": ["x" * 2**15] * ROWS, "click": [0, 1] * (ROWS // 2)}
    pyarrow.csv.write_csv(pa.table(columns), attempt.folder / "log.csv", pyarrow.csv.WriteOptions(quoting_style="none"))
    attempt.run |= {
        "data": {"path": str(attempt.folder / "log.csv")},
        "split": {},
        "features": [{"kind": "categorical", "name": "id", "side": "user"}],
        "tasks": [{"name": "click", "label": "click"}],
    }


def leak(attempt: Attempt) -> None:
    attempt.log["user_id"] = pa.array([f"u{click}" for click in attempt.log["click"].to_pylist()])


def unknown_key(*table: str | int) -> Callable[[Attempt], None]:
    def spoil(attempt: Attempt) -> None:
        attempt.run["tasks"] = [{"name": "click", "label": "click"}]
        where: Any = attempt.run
        for part in table[:-1]:
            where = where[part]
        where[table[-1]] = 1

    return spoil


CASES: dict[str, tuple[Callable[[Attempt], None], type[FullfunnelError], str]] = {
    "missing file": (lambda a: a.run["data"].update(path="nowhere.parquet"), SourceMissing, "nowhere.parquet: no such"),
    "unset variable": (lambda a: a.run["data"].update(path="$NO_SUCH_LOG/a"), RunInvalid, "not set"),
    "missing feature column": (rename_feature, ColumnMissing, "no column 'prize' (did you mean 'price'?)"),
    "missing label column": (
        lambda a: a.run.update(tasks=[{"name": "click", "label": "clik"}]),
        ColumnMissing,
        "no column 'clik' (did you mean 'click'?)",
    ),
    "missing time column": (lambda a: a.run["split"].update(column="tim"), ColumnMissing, "(did you mean 'time'?)"),
    "missing group column": (
        lambda a: a.run["evaluation"].update(group="user"),
        ColumnMissing,
        "no column 'user' (did you mean 'user_id'?)",
    ),
    "missing truth": (
        lambda a: a.run["evaluation"].update(truth={"path": "no.parquet", "key": "id", "columns": {"pctr": "p"}}),
        SourceMissing,
        "no.parquet: no such file",
    ),
    "label outside 0 and 1": (lambda a: a.set("click", 5, 2), LabelInvalid, "'click': 2 in row 5 is neither 0 nor 1"),
    "missing label": (lambda a: a.set("click", 5, None), LabelInvalid, "label column 'click': missing in row 5"),
    "conversion without a click": (
        lambda a: a.log.update(conversion=pa.array([1] * ROWS)),
        LabelWithoutParent,
        "label column 'conversion': conversion without click in row",
    ),
    "empty split": (lambda a: a.run["split"].update(test=0.0), EmptySplit, "no row falls into the test split"),
    "constant feature": (
        lambda a: a.log.update(user_id=pa.array(["u"] * ROWS)),
        UselessFeature,
        "feature 'user_id': the same value in every training row",
    ),
    "constant number": (
        lambda a: a.log.update(price=pa.array([1.0] * ROWS)),
        UselessFeature,
        "feature 'price': the same value in every training row",
    ),
    "all-missing feature": (
        lambda a: a.log.update(age=pa.nulls(ROWS, pa.float32())),
        UselessFeature,
        "feature 'age': missing in every training row",
    ),
    "missing value that is refused": (
        refuse_missing,
        ValueMissing,
        "feature 'age': missing in row",
    ),
    "feature that gives the label away": (leak, LeakingFeature, "feature 'user_id': alone it tells 'click'"),
    "task with one class": (
        lambda a: a.log.update(conversion=pa.array([0] * ROWS)),
        OneClass,
        "task 'conversion': only negative rows in the train split where click holds",
    ),
    "sequence of mixed types": (mixed_sequence, MixedTypes, "column 'recent': holds values of several types"),
    "sequence that is no list": (
        lambda a: a.log.update(recent=pa.array(["i1"] * ROWS)),
        ColumnTypeInvalid,
        "column 'recent': holds",
    ),
    "parallel sequences of different lengths": (
        lambda a: a.log.update(actions=pa.array([[1]] * ROWS)),
        DataInvalid,
        "column 'actions': sequences that run in parallel are",
    ),
    "files of different types": (mixed_files, MixedTypes, "more.parquet, column 'user_id': holds numbers where"),
    "CSV that turns to text": (csv_that_turns_to_text, MixedTypes, "log.csv, column 'id': "),
    "text for a number": (
        lambda a: a.log.update(price=pa.array(["9.90"] * ROWS)),
        ColumnTypeInvalid,
        "column 'price': holds",
    ),
    "infinite number": (lambda a: a.set("price", 5, float("inf")), DataInvalid, "'price': an infinite number (row 5"),
    "truncated Parquet": (truncate, DataInvalid, "log.parquet: cannot be read as parquet"),
    "unknown key": (unknown_key("sed"), UnknownKey, "run.toml, sed: no such key (did you mean 'seed'?)"),
    "unknown key of the model": (
        unknown_key("model", "towr"),
        UnknownKey,
        "run.toml, model.towr: no such key (did you mean 'tower'?)",
    ),
    "unknown key of a feature": (
        unknown_key("features", 10, "scael"),
        UnknownKey,
        "run.toml, features[10] ('price').scael: no such key (did you mean 'scale'?)",
    ),
    "unknown key of a task": (
        unknown_key("tasks", 0, "lable"),
        UnknownKey,
        "run.toml, tasks[0] ('click').lable: no such key (did you mean 'label'?)",
    ),
    "diverging": (
        lambda a: a.run["training"].update(learning_rate=1e30, epochs=2),
        RunInvalid,
        "[training]: the validation loss is not a finite number",
    ),
}

cases = pytest.mark.parametrize(("spoil", "kind", "words"), CASES.values(), ids=CASES.keys())


def attempt(folder: Path, spoil: Callable[[Attempt], None]) -> tuple[Path, Path]:
    """The run file of a spoilt run, and the target it must leave nothing at or beside."""
    found = Attempt(small.columns(), small.document(folder / "log.parquet"), folder)
    spoil(found)
    (folder / "bundles").mkdir()
    return found.write(), folder / "bundles" / "model"


@cases
def test_bad_input_ends_in_one_error_and_leaves_nothing(
    spoil: Callable[[Attempt], None], kind: type[FullfunnelError], words: str, tmp_path: Path
) -> None:
    path, target = attempt(tmp_path, spoil)
    with pytest.raises(kind) as caught:
        train(load_run(path), target)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.place
    assert caught.value.remedy
    assert list(target.parent.iterdir()) == []


@cases
def test_bad_input_ends_the_command_with_one_line_and_a_code(
    spoil: Callable[[Attempt], None],
    kind: type[FullfunnelError],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, target = attempt(tmp_path, spoil)
    assert main(["train", str(path), "--output", str(target), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fullfunnel train: ")
    assert words in err
    assert " Remedy: " in err
    assert err.count("\n") == 1
    assert list(target.parent.iterdir()) == []


# ------------------------------------------------------------------ the target


def fill_folder(target: Path) -> None:
    target.mkdir()
    (target / "manifest.json").write_text("mine")


@pytest.mark.parametrize(
    "occupy", [fill_folder, lambda target: target.write_text("mine"), lambda target: target.symlink_to("elsewhere")]
)
def test_target_that_is_taken_is_never_overwritten(occupy: Callable[[Path], Any], tmp_path: Path) -> None:
    path, target = attempt(tmp_path, lambda _: None)
    occupy(target)
    before = sorted((str(p), p.is_symlink() or p.is_dir() or p.read_text()) for p in target.parent.rglob("*"))
    with pytest.raises(BundleExists, match="never overwritten") as caught:
        train(load_run(path), target)
    assert caught.value.place == str(target)
    assert before == sorted((str(p), p.is_symlink() or p.is_dir() or p.read_text()) for p in target.parent.rglob("*"))


def test_published_bundle_is_never_overwritten(trained: Trained) -> None:
    before = {path.name: path.read_bytes() for path in trained.directory.iterdir()}
    with pytest.raises(BundleExists, match="choose another \\[bundle\\] version or --output"):
        train(trained.run, trained.directory)
    assert before == {path.name: path.read_bytes() for path in trained.directory.iterdir()}


def test_target_that_cannot_be_written_is_reported_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = attempt(tmp_path, lambda a: a.run["data"].update(path="nowhere"))
    shutil.rmtree(target.parent)
    target.parent.write_text("a file")
    with pytest.raises(TargetUnwritable) as caught:
        train(load_run(path), target)
    assert caught.value.place == str(target)
    assert main(["train", str(path), "--output", str(target), "--quiet"]) == 1
    assert "choose another --output" in capsys.readouterr().err
    assert target.parent.read_text() == "a file"


def test_bundle_of_a_newer_format_is_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.directory, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2', 1))
    with pytest.raises(BundleTooNew, match="bundle format 2"):
        read_bundle(copy)
    assert main(["inspect", str(copy)]) == 1
    assert "upgrade Fullfunnel" in capsys.readouterr().err


# ------------------------------------------------------------------ ctrl-C


def test_interrupted_run_exits_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    path, target = attempt(tmp_path, lambda _: None)
    forever = [f"--set=training.{key}=1000000" for key in ("epochs", "patience")]
    command = [sys.executable, "-m", "training", str(path), "--output", str(target), *forever]
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored
    try:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    with process:
        assert process.stdout is not None
        stages = []
        for line in process.stdout:
            stages.append(line.split()[0])
            if stages[-1] == "encode":
                break  # now it trains, for ever
        else:
            pytest.fail(f"ended before training: {process.stderr and process.stderr.read()}")
        assert [path.name for path in target.parent.iterdir()] != []
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert stages == ["split", "read", "encode"]
    assert list(target.parent.iterdir()) == []


def test_module_is_a_command_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.__main__ import main as train_main

    path, target = attempt(tmp_path, rename_feature)
    assert train_main([str(path), "--output", str(target)]) == 1
    assert "no column 'prize' (did you mean 'price'?)" in capsys.readouterr().err
    assert train_main([str(path), "--set", "training.epoch=1"]) == 1
    assert "(did you mean 'epochs'?)" in capsys.readouterr().err
    assert list(target.parent.iterdir()) == []
