"""What is chosen by name is found, and what does not compose is refused with the reason."""

from pathlib import Path
from typing import Any

import pytest

from contract.errors import RunInvalid, UnknownKey
from models.registry import ARCHITECTURES
from tests.training import small
from training.choices import CHOICES, entry_of, name_of
from training.run import parse_run


def document(**training: Any) -> small.Document:
    run = small.document(Path("log.parquet"))
    run["training"] |= training
    return run


@pytest.mark.parametrize("path", CHOICES)
def test_every_entry_is_found_by_its_name_and_by_its_options(path: str) -> None:
    registry, _ = CHOICES[path]
    assert len({name_of(entry) for entry in registry}) == len(registry)
    for entry in registry:
        assert entry_of(registry, entry.options_type()) is entry


def test_unknown_choice_names_those_there_are() -> None:
    with pytest.raises(RunInvalid, match=r"`kind` must be one of fixed.*did you mean 'fixed'"):
        parse_run(document(weighting={"kind": "fixd"}))


def test_unknown_key_of_a_choice_names_the_nearest_known_one() -> None:
    with pytest.raises(UnknownKey, match=r"no such key \(did you mean 'growth'\?\)"):
        parse_run(document(weighting={"kind": "fixed", "grow": {}}))


@pytest.mark.parametrize(
    ("sequence", "hint"),
    [("recnt", r" \(did you mean 'recent'\?\)"), ("actions", ""), ("city", ""), ("tags", ""), ("recent_items", "")],
)
def test_sequence_to_be_read_in_steps_must_be_one_of_the_users_that_runs_along_no_other(
    sequence: str, hint: str
) -> None:
    run = document()
    run["features"].append({"kind": "sequence", "name": "tags", "side": "item"})
    run["model"] = {"architecture": "dupn", "sequence": "recent"}
    assert parse_run(run).model.steps == "recent"
    run["model"]["sequence"] = sequence
    with pytest.raises(RunInvalid, match=f"model.sequence names '{sequence}', which is no sequence .*{hint}"):
        parse_run(run)


def test_names_of_architectures_are_those_of_the_registry() -> None:
    assert [name_of(entry) for entry in ARCHITECTURES][:2] == ["shared_bottom", "separate_towers"]
