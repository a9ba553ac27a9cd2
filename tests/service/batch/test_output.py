"""Where the files of a job lie, and what the ending of an output tells."""

from pathlib import Path

import pytest

from contract.errors import DataInvalid
from service.batch.job import File, Job, Shard
from service.batch.output import Output
from service.batch.sources import find


def _output(name: str, output_format: str | None = None) -> Output:
    return Output.of(Job("bundle", "in.csv", name, output_format=output_format), "csv")


def _shard(index: int) -> Shard:
    return Shard(index, File("in.csv", 0, "", {}), (), 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "output_format", "format_name", "is_folder"),
    [
        ("out", None, "csv", True),
        ("out", "arrow", "arrow", True),
        ("out/", None, "csv", True),
        ("v1.2/out", None, "csv", True),
        (".out", None, "csv", True),
        ("out.parquet", None, "parquet", False),
        ("OUT.PQ", None, "parquet", False),
        ("out.jsonl", None, "ndjson", False),
        ("out.parquet", "csv", "csv", False),
        ("out.dat", "parquet", "parquet", False),
    ],
)
def test_an_output_with_an_ending_is_a_file_and_what_is_given_goes_before_it(
    name: str, output_format: str | None, format_name: str, is_folder: bool
) -> None:
    output = _output(name, output_format)
    assert (output.format, output.is_folder) == (format_name, is_folder)


@pytest.mark.parametrize("name", ["out.dat", "out.v1", "parquet.gz"])
def test_an_ending_of_no_format_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(DataInvalid, match=r"known are \.parquet, \.csv, \.ndjson, \.arrow") as said:
        _output(f"there/{name}")
    assert repr(Path(name).suffix) in said.value.fact
    assert said.value.place == f"there/{name}"
    assert "--format" in said.value.remedy


def test_a_home_folder_is_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _output("~/out").target == tmp_path / "out"


def test_a_folder_holds_all_files_of_its_job() -> None:
    output = _output("there/out")
    assert [str(path.relative_to("there/out")) for path in _all(output)] == [
        "_job",
        "_job/journal.ndjson",
        "_job/lock",
        "_SUCCESS",
        "_summary.json",
        "_refused.ndjson",
        "part-00003.csv",
        "_job/refused-00003.ndjson",
    ]


def test_a_file_has_all_others_beside_it_and_its_parts_out_of_sight() -> None:
    output = _output("there/out.pq")
    assert [str(path.relative_to("there")) for path in _all(output)] == [
        ".out.pq.job",
        ".out.pq.job/journal.ndjson",
        ".out.pq.job/lock",
        "out.pq.success.json",
        "out.pq.summary.json",
        "out.pq.refused.ndjson",
        ".out.pq.job/part-00003.parquet",
        ".out.pq.job/refused-00003.ndjson",
    ]


def _all(output: Output) -> list[Path]:
    names = [output.work, output.journal, output.lock, output.success, output.summary, output.refused]
    return [*names, output.part(_shard(3)), output.refused_part(_shard(3))]


def test_names_of_parts_sort_as_their_shards_do() -> None:
    output = _output("out")
    names = [output.part(_shard(index)).name for index in (0, 9, 10, 99, 100, 99_999)]
    assert names == sorted(names)
    assert output.part(_shard(100_000)).name == "part-100000.csv"


def test_of_a_finished_folder_only_the_parts_are_read_as_a_table(tmp_path: Path) -> None:
    output = _output(str(tmp_path / "out"))
    output.work.mkdir(parents=True)
    for path in _all(output)[1:]:
        path.write_bytes(b"x")
    files, chosen = find(str(output.target), None)
    assert [file.path for file in files] == [str(output.part(_shard(3)))]
    assert chosen.name == "csv"
