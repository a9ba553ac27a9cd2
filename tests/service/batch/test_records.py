"""Jobs as folders."""

import dataclasses
import threading
from pathlib import Path

import pytest

from contract.errors import KeyReused, UnknownJob
from service.batch.jobs.records import SUCCEEDED, Entry, Records, State, new_id


@pytest.fixture
def records(tmp_path: Path) -> Records:
    found = Records(tmp_path / "jobs")
    found.prepare()
    return found


def entry(key: str | None = None, created: float = 0.0, name: str = "x") -> Entry:
    return Entry(new_id(key), created, "/bundle", {"digest": "d"}, "/in", "/out", {"input": name})


def test_one_job_is_made_of_a_key_however_many_ask_at_once(records: Records) -> None:
    found: list[bool] = []

    def ask() -> None:
        found.append(records.add(entry("key"))[1])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 15 + [True]
    assert len(list(records.folder.iterdir())) == 1
    with pytest.raises(KeyReused):
        records.add(entry("key", name="other"))


def test_without_a_key_each_is_its_own(records: Records) -> None:
    assert all(records.add(entry())[1] for _ in range(3))
    assert len(records.ids()) == 3


@pytest.mark.parametrize("job_id", ["", "..", "../x", "0" * 32, "g" * 32, "0" * 31, "runner.lock"])
def test_ids_that_are_none_lead_nowhere(records: Records, job_id: str) -> None:
    with pytest.raises(UnknownJob):
        records.entry(job_id)
    with pytest.raises(UnknownJob):
        records.ask_to_cancel(job_id)


def test_the_oldest_that_have_ended_are_forgotten(records: Records) -> None:
    jobs = [records.add(entry(created=number))[0] for number in range(5)]
    for one in jobs[1:]:
        records.write_state(one.id, State(state=SUCCEEDED))
    records.forget(keep=3)
    assert [one.id for one, _ in records.all()] == [jobs[0].id, jobs[2].id, jobs[3].id, jobs[4].id]


def test_what_is_written_is_read(records: Records) -> None:
    one = dataclasses.replace(entry(), asked={"input": "/in", "keep": ["a"]})
    records.add(one)
    assert records.entry(one.id) == one
    assert records.state(one.id) == State()
    state = State("running", rows=5, rows_done=2, error={"type": "x"}, runs=1)
    records.write_state(one.id, state)
    assert records.state(one.id) == state
