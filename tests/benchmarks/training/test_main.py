from pathlib import Path

import pytest

from benchmarks.training.__main__ import SYSTEMS, Measured, main, measure, table
from benchmarks.training.result import Result


def measured(rate: float, seconds: float | None) -> Measured:
    return Measured(Result(rate, seconds, seconds and seconds / 2, 0.75, 0.8), 50.0, 1024.0)


def test_the_table_compares_with_the_loop_and_with_torch_rechub() -> None:
    rows = table(
        {
            ("esmm", "loop"): measured(100_000, None),
            ("esmm", "fullfunnel"): measured(80_000, 20.0),
            ("esmm", "torch-rechub"): measured(20_000, 90.0),
            ("ple", "fullfunnel"): measured(50_000, 30.0),
        }
    ).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len({len(row) for row in cells}) == 1
    assert cells[2][2:6] == ["100,000", "1.00", "", ""]
    assert cells[3][2:6] == ["80,000", "0.80", "20.0", "4.5x"]
    assert cells[4][2:6] == ["20,000", "0.20", "90.0", "1.0x"]
    assert cells[5][2:6] == ["50,000", "", "30.0", ""]


def test_a_repeated_measurement_keeps_the_best() -> None:
    best = measured(10.0, 5.0).best(Measured(Result(8.0, 4.0, 2.0, 0.75, 0.8), 40.0, 2048.0))
    assert best == Measured(Result(10.0, 4.0, 2.0, 0.75, 0.8), 40.0, 2048.0)


def test_one_command_trains_in_a_process_of_its_own(log_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "20000", "--systems", "loop", "--models", "esmm", "--data", str(log_folder.parent)])
    row = capsys.readouterr().out.splitlines()[-1].split("|")
    assert row[1].strip() == "esmm"
    assert float(row[8].replace(",", "")) > 100  # MiB: torch was loaded there


def test_a_system_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no_system esmm ended with 1"):
        measure("no_system", "esmm", tmp_path)


def test_every_system_has_a_module() -> None:
    for name, _ in SYSTEMS:
        assert Path(f"benchmarks/training/{name.removeprefix('torch-')}.py").exists()
