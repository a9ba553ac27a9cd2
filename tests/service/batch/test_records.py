"""Jobs as folders."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from contract.errors import KeyReused, StorageFailed, UnknownJob
from service.batch.jobs.records import FAILED, SUCCEEDED, Entry, Records, State, new_id


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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\x00",
        b"[]",
        b"null",
        b"[" * 5000,
        b'{"state": "paused"}',
        b'{"runs": "1"}',
        b'{"rows": 1e400}',
        b'{"rows_done": -1}',
        b'{"started": NaN}',
        b'{"ended": 1e300}',
        b'{"error": {"type": 1}}',
    ],
)
def test_a_job_whose_state_is_damaged_has_failed_and_hides_no_other(records: Records, content: bytes) -> None:
    damaged, sound = (records.add(entry(created=number))[0] for number in range(2))
    (records.folder / damaged.id / "state.json").write_bytes(content)
    state = records.state(damaged.id)
    assert state.state == FAILED and state.error is not None
    assert state.error.keys() == {"type", "place", "detail", "remedy"}
    assert state.error["place"] == f"{damaged.id}/state.json"
    assert records.all() == [(damaged, state), (sound, State())]
    records.forget(keep=1)
    assert records.ids() == [sound.id]


@pytest.mark.parametrize("name", ["state.json", "job.json"])
def test_a_job_that_cannot_be_read_hides_no_other_and_is_not_forgotten(records: Records, name: str) -> None:
    unreadable, sound = (records.add(entry(created=number))[0] for number in range(2))
    records.write_state(sound.id, State(SUCCEEDED))
    path = records.folder / unreadable.id / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(StorageFailed, match=rf"{unreadable.id}/{name}: .* \(Is a directory\)\. Remedy: "):
        records.state(unreadable.id) if name == "state.json" else records.entry(unreadable.id)
    assert records.all() == [(sound, State(SUCCEEDED))]
    records.forget(keep=0)
    assert records.ids() == [unreadable.id]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"later": 1}'])
def test_a_job_of_which_nobody_can_tell_what_was_asked_is_left_out(records: Records, content: str) -> None:
    damaged, sound = (records.add(entry(created=number))[0] for number in range(2))
    (records.folder / damaged.id / "job.json").write_text(content)
    with pytest.raises(StorageFailed, match=rf"{damaged.id}/job\.json"):
        records.entry(damaged.id)
    assert records.all() == [(sound, State())]


def test_what_a_later_version_says_besides_is_passed_over(records: Records) -> None:
    one, _ = records.add(entry())
    state = State("running", rows=5, rows_done=2, started=12.5, runs=1)
    (records.folder / one.id / "state.json").write_text(json.dumps({**dataclasses.asdict(state), "later": [1]}))
    assert records.state(one.id) == state
