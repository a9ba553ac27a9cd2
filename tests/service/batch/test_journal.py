"""The journal: what was written is found again, what was torn is not believed."""

from pathlib import Path
from typing import Any

import pytest

from contract.errors import JobChanged
from service.batch.journal import Journal, check_same
from service.batch.shards import Done

IDENTITY: dict[str, Any] = {
    "bundle": "b",
    "options": {"keep": []},
    "versions": {"numpy": "2"},
    "files": [["a.parquet", 3, "stamp", "digest"]],
}
ONE, TWO = Done(0, 10, 1, 99, "aa"), Done(3, 5, 0, 11, "bb")


def _begun(path: Path) -> bytes:
    with Journal.opened(path, IDENTITY) as journal:
        journal.add(ONE)
        journal.add(TWO)
    return path.read_bytes()


def test_what_was_done_is_found_again(tmp_path: Path) -> None:
    _begun(tmp_path / "journal")
    with Journal.opened(tmp_path / "journal", IDENTITY) as journal:
        assert journal.done == {0: ONE, 3: TWO}


def test_a_journal_that_was_torn_anywhere_is_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    content = _begun(path)
    ends = [place + 1 for place, byte in enumerate(content) if byte == 10]
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with Journal.opened(path, IDENTITY) as journal:
            assert len(journal.done) == max(0, sum(end <= cut for end in ends) - 1)
            for done in (ONE, TWO):
                if done.index not in journal.done:
                    journal.add(done)
        assert path.read_bytes() == content


@pytest.mark.parametrize("line", [0, 1])
@pytest.mark.parametrize("damaged", [b"{broken", b"3", b"{}", b'{"index": 0}', b'{"job": 3}', b"[" * 10**5])
def test_a_damaged_line_is_refused(tmp_path: Path, line: int, damaged: bytes) -> None:
    path = tmp_path / "journal"
    lines = _begun(path).splitlines(keepends=True)
    lines[line] = damaged + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(JobChanged, match=f"line {line + 1} of the journal is damaged"), Journal.opened(path, IDENTITY):
        pass


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"bundle": "c"}, "the bundle is not the one"),
        ({"options": {"keep": ["id"]}}, r"the options are not those .* keep was \[\]"),
        ({"versions": {"numpy": "3"}}, "other versions of the libraries"),
        ({"files": [["a.parquet", 4, "stamp", "digest"]]}, "a.parquet differs"),
        ({"files": [*IDENTITY["files"], ["b.parquet", 3, "stamp", "digest"]]}, "b.parquet is new"),
        ({"files": []}, "a.parquet is gone"),
    ],
)
def test_a_job_that_is_another_is_told_what_differs(tmp_path: Path, change: dict[str, Any], fact: str) -> None:
    _begun(tmp_path / "journal")
    other = {**IDENTITY, **change}
    with pytest.raises(JobChanged, match=fact) as said, Journal.opened(tmp_path / "journal", other):
        pass
    assert "--restart" in said.value.remedy
    check_same(IDENTITY, IDENTITY, "here")
