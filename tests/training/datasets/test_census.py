"""training/datasets/census.py: the publisher's CSV files become the three splits of the MMoE paper."""

import io
import random
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest

from contract.errors import DataInvalid, SourceMissing, TargetUnwritable
from tests.training.datasets.learning import learn
from training.datasets.census import COLUMNS, NUMBERS, TEST, TRAIN, convert
from training.run import load_run

ROWS = {TRAIN: 40, TEST: 21}


def _line(number: int) -> str:
    """A row in the publisher's form: a space after every comma, `?` for unknown, the income in words."""
    draw = random.Random(number)
    values = dict.fromkeys(COLUMNS, "Not in universe")
    for name in COLUMNS:
        if name in {"age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "num_emp"}:
            values[name] = str(draw.randrange(90))
    values |= {"instance_weight": "1032.38", "weeks_worked": str(draw.randrange(53))}
    values |= dict.fromkeys(("det_ind_code", "det_occ_code", "own_or_self", "vet_benefits"), "2")
    values |= {"year": str(94 + number % 2), "age": str(number), "country_father": "?" if number % 3 == 0 else "Peru"}
    values |= {"marital_stat": "Never married" if number % 4 == 0 else "Widowed"}
    values |= {"income": "50000+." if number % 5 == 0 else "- 50000."}
    return ", ".join(values[name] for name in COLUMNS)


def _files() -> dict[str, str]:
    return {name: "".join(f"{_line(number)}\n" for number in range(rows)) for name, rows in ROWS.items()}


def _folder(path: Path, files: dict[str, str]) -> Path:
    (path / "inner").mkdir(parents=True)
    for name, text in files.items():
        (path / "inner" / name).write_text(text)
    return path


def _archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package-1.0/data/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def _columns(path: Path, split: str) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = pyarrow.parquet.read_table(path / f"{split}.parquet").to_pydict()
    return columns


def test_the_archive_and_its_unpacked_folder_convert_alike(tmp_path: Path) -> None:
    convert(_archive(tmp_path / "census.tar.gz", _files()), tmp_path / "a")
    convert(_folder(tmp_path / "folder", _files()), tmp_path / "b")
    for split in ("train", "validation", "test"):
        assert (tmp_path / "a" / f"{split}.parquet").read_bytes() == (tmp_path / "b" / f"{split}.parquet").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "run.toml",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]


def test_the_columns_are_the_42_of_the_publisher_and_one_more_label(tmp_path: Path) -> None:
    train = _columns(convert(_folder(tmp_path / "source", _files()), tmp_path / "out"), "train")
    assert list(train) == [*COLUMNS, "never_married"]
    assert len(COLUMNS) == len(set(COLUMNS)) == 42


def test_labels_and_values_are_read_as_the_publisher_means_them(tmp_path: Path) -> None:
    train = _columns(convert(_folder(tmp_path / "source", _files()), tmp_path / "out"), "train")
    assert train["income"] == [int(number % 5 == 0) for number in range(40)]
    assert train["never_married"] == [int(number % 4 == 0) for number in range(40)]
    assert train["country_father"] == [None if number % 3 == 0 else "Peru" for number in range(40)]
    assert train["age"] == list(range(40))
    assert train["year"] == [94 + number % 2 for number in range(40)]
    assert set(train["class_worker"]) == {"Not in universe"}, "the space after the comma is no part of the value"


def test_the_test_rows_are_halved_at_random_and_none_is_lost(tmp_path: Path) -> None:
    out = convert(_folder(tmp_path / "source", _files()), tmp_path / "out")
    validation, test = (_columns(out, split)["age"] for split in ("validation", "test"))
    assert (len(validation), len(test)) == (10, 11)
    assert set(validation) | set(test) == set(range(21))
    assert validation != list(range(10)), "not simply the first half"


def test_converting_twice_gives_the_same_split(tmp_path: Path) -> None:
    source = _folder(tmp_path / "source", _files())
    first, second = (convert(source, tmp_path / name) for name in ("a", "b"))
    assert _columns(first, "test") == _columns(second, "test")


@pytest.mark.parametrize("kind", ["nothing", "not an archive", "cut short", "without the files"])
def test_an_unreadable_source_is_named(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "census.tar.gz"
    if kind == "not an archive":
        source.write_bytes(b"hello")
    elif kind == "cut short":
        content = _archive(source, {name: text * 50 for name, text in _files().items()}).read_bytes()
        source.write_bytes(content[: len(content) // 3])
    elif kind == "without the files":
        _archive(source, {"other.csv": "1,2\n"})
    with pytest.raises(SourceMissing, match=r"census\.tar\.gz, census_income_1994_1995_train\.csv"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda text: text.replace(", 94, ", ", "), "42 columns"),
        (lambda text: text.replace("50000+.", "rich"), "'rich'"),
        (lambda text: text.replace("1032.38", "heavy"), "heavy"),
    ],
    ids=["a column less", "another income", "a word for a number"],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, damage: object, fact: str) -> None:
    assert callable(damage)
    files = {name: damage(text) for name, text in _files().items()}
    with pytest.raises(DataInvalid, match="census_income_1994_1995_train") as caught:
        convert(_folder(tmp_path / "source", files), tmp_path / "out")
    assert fact in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetUnwritable, match="file"):
        convert(_folder(tmp_path / "source", _files()), tmp_path / "file" / "out")


def test_the_run_reads_every_column_but_those_the_paper_leaves_out() -> None:
    run = load_run(Path(__file__).parents[3] / "runs" / "census.toml")
    left_out = {"education", "marital_stat", "instance_weight", "income"}
    assert {feature.name for feature in run.features} == set(COLUMNS) - left_out
    assert {feature.name for feature in run.features if feature.kind == "numeric"} == set(NUMBERS) - left_out
    assert [(task.label, task.given) for task in run.tasks] == [("income", None), ("never_married", None)]


def test_the_run_that_comes_with_the_data_is_that_of_the_repository_but_for_its_paths(tmp_path: Path) -> None:
    draw = random.Random(0)
    files = {
        name: "".join(
            ", ".join([*(str(draw.randrange(9)) for _ in COLUMNS[:-1]), draw.choice(["50000+.", "- 50000."])]) + "\n"
            for _ in range(ROWS[name])
        )
        for name in (TRAIN, TEST)
    }
    out = convert(_folder(tmp_path / "source", files), tmp_path / "out")
    ours = load_run(Path(__file__).parents[3] / "runs" / "census.toml")
    theirs = load_run(out / "run.toml")
    assert theirs.data.path == str(out / "train.parquet")
    assert theirs.model_dump() == ours.model_copy(update={"data": theirs.data}).model_dump()


def test_the_run_that_comes_with_the_data_learns(tmp_path: Path) -> None:
    learn(convert(_folder(tmp_path / "source", _files()), tmp_path / "out"))
