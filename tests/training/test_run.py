"""A run file is refused with the place and the nearest key, and its documentation names every key there is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from contract.errors import FullfunnelError, RunInvalid, SourceMissing, UnknownKey
from contract.features import Categorical, Numeric, Sequence
from contract.tasks import CLICK_AND_CONVERSION, Task
from models.registry import ARCHITECTURES, architecture_name
from tests.training import small
from training.choices import CHOICES, name_of
from training.objectives import Escm2Options
from training.run import (
    BundleOptions,
    DataOptions,
    EvaluationOptions,
    Run,
    SplitOptions,
    TrainingOptions,
    TruthOptions,
    expand,
    load_run,
    parse_run,
)

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def keys() -> small.Document:
    return small.document(Path("log.parquet"))


def told(keys: small.Document, kind: type[FullfunnelError] = RunInvalid) -> str:
    """The message with which a run is refused."""
    with pytest.raises(kind) as caught:
        parse_run(keys, place="run.toml")
    assert type(caught.value) is kind
    assert caught.value.place.startswith("run.toml")
    assert caught.value.remedy
    return str(caught.value)


def test_defaults_are_a_click_and_a_conversion_over_the_entire_space(keys: small.Document) -> None:
    run = parse_run(keys)
    assert run.tasks == CLICK_AND_CONVERSION
    assert run.training.objective == "entire_space"
    assert run.target == Path("bundles/small/1")


def test_run_file_gives_the_same_run_as_its_keys(keys: small.Document, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(small.as_toml(keys))
    assert load_run(path) == parse_run(keys)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ((), "epoch"),
        (("data",), "data.epoch"),
        (("split",), "split.epoch"),
        (("training",), "training.epoch"),
        (("evaluation",), "evaluation.epoch"),
        (("evaluation", "truth"), "evaluation.truth.epoch"),
        (("features", 0), "features[0] ('user_id').epoch"),
        (("tasks", 1), "tasks[1] ('conversion').epoch"),
        (("model",), "model.epoch"),
    ],
)
def test_unknown_key_is_named_with_its_place_in_every_table(
    keys: small.Document, table: tuple[str | int, ...], place: str
) -> None:
    keys["tasks"] = [task.model_dump(exclude_none=True) for task in CLICK_AND_CONVERSION]
    keys["evaluation"]["truth"] = {"path": "truth.parquet", "key": "id", "columns": {"pctr": "p"}}
    where: Any = keys
    for part in table:
        where = where[part]
    where["epoch"] = 1
    message = told(keys, UnknownKey)
    assert message.startswith(f"run.toml, {place}: no such key")


@pytest.mark.parametrize(
    ("table", "wrong", "right"),
    [
        ((), "featurs", "features"),
        (("data",), "pth", "path"),
        (("split",), "colum", "column"),
        (("training",), "epoch", "epochs"),
        (("evaluation",), "groups", "group"),
        (("features", 0), "mincount", "min_count"),
        (("features", 3), "bin", "bins"),
        (("features", 4), "maxlength", "max_length"),
        (("tasks", 0), "lable", "label"),
        (("model",), "towers", "tower"),
    ],
)
def test_nearest_key_is_offered_for_an_unknown_one(
    keys: small.Document, table: tuple[str | int, ...], wrong: str, right: str
) -> None:
    keys["tasks"] = [task.model_dump(exclude_none=True) for task in CLICK_AND_CONVERSION]
    where: Any = keys
    for part in table:
        where = where[part]
    where[wrong] = 1
    assert f"(did you mean {right!r}?)" in told(keys, UnknownKey)


def test_wrong_value_is_named_with_its_place(keys: small.Document) -> None:
    keys["features"][3]["bins"] = 1
    assert told(keys).startswith("run.toml, features[3] ('age').bins: ")
    keys["features"][3]["bins"] = 4
    keys["training"]["epochs"] = 0
    assert told(keys).startswith("run.toml, training.epochs: ")


def test_unknown_architecture_is_refused_with_those_there_are(keys: small.Document) -> None:
    keys["model"] = {"architecture": "mmo"}
    message = told(keys)
    assert "did you mean 'mmoe'?" in message
    assert all(architecture_name(entry) in message for entry in ARCHITECTURES)


def test_wrong_value_in_the_model_is_named_with_its_place(keys: small.Document) -> None:
    keys["model"] = {"architecture": "mmoe", "experts": 0}
    assert told(keys).startswith("run.toml, model.experts: ")


def test_model_without_an_architecture_is_refused(keys: small.Document) -> None:
    keys["model"] = {"tower": [8]}
    assert "`architecture` must be one of" in told(keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_weights", {"convert": 2.0}),
        ("positive_weights", {"convert": 2.0}),
        ("weighting.growth", {"kind": "fixed", "growth": {"convert": 1.1}}),
    ],
)
def test_weights_for_a_task_that_is_not_there_are_refused(keys: small.Document, key: str, value: Any) -> None:
    keys["training"][key.split(".")[0]] = value
    assert f"training.{key} names 'convert', which is no task (did you mean 'conversion'?)" in told(keys)


def test_weights_of_escm2_are_refused_with_another_objective(keys: small.Document) -> None:
    keys["training"]["escm2"] = {"joint_weight": 0.5}
    assert 'training.escm2 belongs to the objective "escm2_ips", and this run has "entire_space"' in told(keys)
    keys["training"]["objective"] = "escm2_ips"
    assert parse_run(keys).training.escm2 == Escm2Options(joint_weight=0.5)
    keys["training"]["escm2"] = {"joint_weigth": 0.5}
    assert "run.toml, training.escm2.joint_weigth" in (message := told(keys, UnknownKey))
    assert "did you mean 'joint_weight'" in message


def test_label_among_the_features_is_refused(keys: small.Document) -> None:
    keys["features"][0]["name"] = "click"
    assert "'click' is both a feature and a label" in told(keys)


def test_what_the_contract_refuses_keeps_its_place_and_remedy(keys: small.Document) -> None:
    small.feature(keys, "recent")["dim"] = 8
    message = told(keys)
    assert message.startswith("run.toml, feature 'recent': ")
    assert message.endswith("Remedy: give both the same dim.")


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "time"}, '`by = "time"` needs `column`'),
        ({"by": "key"}, '`by = "key"` needs `column`'),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"folds": 2, "validation": 0.5}, "leave nothing to train on"),
        ({"folds": 5, "fold": 5}, "`fold` must be less than `folds`"),
        ({"by": "time", "column": "time", "folds": 5}, "`folds` go with `by = key` or `row`"),
    ],
)
def test_impossible_split_is_refused(keys: small.Document, split: small.Document, words: str) -> None:
    keys["split"] = split
    assert words in told(keys)


def test_run_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="cannot be read"):
        load_run(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"[data]\n[data]\n"])
def test_run_file_that_is_no_toml_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(RunInvalid, match="not TOML"):
        load_run(path)


def test_overrides_are_toml_values_or_bare_strings(keys: small.Document, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(small.as_toml(keys))
    overrides = [
        "training.epochs=7",
        "data.path=other.parquet",
        'model={architecture = "mmoe"}',
        'bundle.directory="b"',
    ]
    run = load_run(path, overrides)
    assert (run.training.epochs, run.data.path, run.model.architecture) == (7, "other.parquet", "mmoe")
    assert run.target == Path("b/small/1")
    assert run.training.batch_rows == 64


@pytest.mark.parametrize(
    ("override", "words"), [("training.epochs", "is not key=value"), ("name.x=1", "does not lead through tables")]
)
def test_override_that_cannot_be_followed_is_refused(
    keys: small.Document, tmp_path: Path, override: str, words: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(small.as_toml(keys))
    with pytest.raises(RunInvalid, match=words):
        load_run(path, [override])


def test_override_of_an_unknown_key_is_refused(keys: small.Document, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(small.as_toml(keys))
    with pytest.raises(UnknownKey, match="did you mean 'epochs'"):
        load_run(path, ["training.epoch=2"])


def test_variables_in_paths_are_expanded_and_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGS", "somewhere")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert expand("$LOGS/a.parquet") == "somewhere/a.parquet"
    with pytest.raises(RunInvalid, match="environment variable that is not set"):
        expand("$NOWHERE/a.parquet")


@pytest.mark.parametrize("path", sorted((PROJECT / "runs").rglob("*.toml")), ids=lambda path: str(path.stem))
def test_every_run_file_of_the_project_is_valid(path: Path) -> None:
    assert load_run(path).tasks


# ------------------------------------------------------------------ docs/run-file.md

TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The top of the file", Run),
    ("[bundle]", BundleOptions),
    ("[data]", DataOptions),
    ("[split]", SplitOptions),
    ("[[features]] kind = categorical", Categorical),
    ("[[features]] kind = numeric", Numeric),
    ("[[features]] kind = sequence", Sequence),
    ("[[tasks]]", Task),
    *((f"[model] architecture = {architecture_name(entry)}", entry.options_type) for entry in ARCHITECTURES),
    ("[training]", TrainingOptions),
    ("[training.escm2]", Escm2Options),
    *(
        (f"[{path}] kind = {name_of(entry)}", entry.options_type)
        for path, (registry, key) in CHOICES.items()
        if key == "kind"
        for entry in registry
    ),
    ("[evaluation]", EvaluationOptions),
    ("[evaluation.truth]", TruthOptions),
)


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Heading -> key -> (default, meaning), as docs/run-file.md has them."""
    tables: dict[str, dict[str, tuple[str, str]]] = {}
    heading = ""
    for line in (PROJECT / "docs" / "run-file.md").read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").replace("`", "").replace('"', "").strip()
        elif row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line):
            tables.setdefault(heading, {})[row[1]] = (row[2], row[3])
    return tables


def as_documented(default: Any) -> str:
    """A default as the documentation writes it: TOML, or a word where there is none."""
    if isinstance(default, BaseModel) and hasattr(default, "kind"):
        return f'`"{default.kind}"`'
    if isinstance(default, BaseModel) or (isinstance(default, tuple) and default and isinstance(default[0], BaseModel)):
        return "see below"
    if default is None or default in ((), {}, ""):
        return "none"
    if isinstance(default, str):
        return f'`"{default}"`'
    if isinstance(default, tuple):
        return f"`{list(default)}`"
    return f"`{default}`"


@pytest.mark.parametrize(("heading", "model"), TABLES, ids=[heading for heading, _ in TABLES])
def test_documentation_has_every_key_with_its_default_and_a_meaning(heading: str, model: type[BaseModel]) -> None:
    fields = {
        name: "required" if field.is_required() else as_documented(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
    }
    for chosen_by in ("kind", "architecture"):
        if chosen_by in fields:
            fields[chosen_by] = "required"
    table = documented()[heading]
    assert {key: default for key, (default, _) in table.items()} == fields
    assert all(len(meaning) > 10 for _, meaning in table.values())


def test_documentation_has_no_table_that_is_not_in_the_code() -> None:
    assert list(documented()) == [heading for heading, _ in TABLES]


def test_smallest_run_file_of_the_documentation_is_valid() -> None:
    text = (PROJECT / "docs" / "run-file.md").read_text()
    run = parse_run(tomllib.loads(text.split("```toml\n")[1].split("```")[0]))
    assert [task.name for task in run.tasks] == ["click", "conversion"]
