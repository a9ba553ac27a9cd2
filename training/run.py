"""A run: everything that decides what a training run makes, as one frozen value loaded from a TOML file.

Knows keys and their defaults. Does not know how any of it is carried out.
"""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from contract.errors import RunInvalid, SourceMissing, UnknownKey
from contract.features import Categorical, Feature, Frozen, Numeric, check_features
from contract.features import Sequence as SequenceFeature
from contract.manifest import ROW_USER
from contract.tasks import CLICK_AND_CONVERSION, Task, check_tasks, outputs
from models.architecture import Options
from training.choices import CHOICES, check_choices, check_steps, chosen, entry_of, name_of, nearest
from training.objectives import Escm2Options, ObjectiveName, check_objective
from training.regularisers.regulariser import RegulariserOptions
from training.schedules.joint import JointOptions
from training.schedules.registry import SCHEDULES
from training.schedules.schedule import ScheduleOptions
from training.weightings.fixed import FixedOptions
from training.weightings.weighting import WeightingOptions

Share = Annotated[float, Field(gt=0.0, le=1.0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class BundleOptions(Frozen):
    """Where the bundle lands: `directory`/`name`/`version`, with the run's name and version."""

    directory: str = "bundles"


class DataOptions(Frozen):
    """The impression log. A path is a file, a folder or a glob; `$VARIABLES` are expanded.

    `negative_rate`: the share of the rows without a click (of the first task) that the log still holds; the
    bundle's probabilities are those of the traffic before that.
    """

    path: str
    validation_path: str | None = None
    test_path: str | None = None
    format: Literal["parquet", "csv", "arrow"] | None = Field(
        default=None, description="by the file's ending if absent"
    )
    negative_rate: Share = 1.0


class SplitOptions(Frozen):
    """Cuts validation and test off `path`, unless [data] gives them as files.

    `time`: the last shares by `column`. `key`: by a hash of `column`, so that all rows of a key stay together;
    with `folds`, fold number `fold` is the test split. `row`: by a hash of the row's number.
    """

    by: Literal["time", "key", "row"] = "row"
    column: str | None = None
    validation: Fraction = 0.1
    test: Fraction = 0.1
    folds: int | None = Field(default=None, ge=2, le=1000)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _column_is_named(self) -> Self:
        if self.by != "row" and self.column is None:
            raise ValueError(f'`by = "{self.by}"` needs `column`')
        if self.folds is not None and (self.by == "time" or self.fold >= self.folds):
            raise ValueError("`folds` go with `by = key` or `row`, and `fold` must be less than `folds`")
        if self.validation + (self.test if self.folds is None else 1 / self.folds) >= 1.0:
            raise ValueError("validation and test leave nothing to train on")
        return self


class TrainingOptions(Frozen):
    """The optimisation. Rates are per step; `negative_rate` drops clickless training rows, and is corrected for."""

    objective: ObjectiveName = "entire_space"
    escm2: Escm2Options | None = None
    epochs: int = Field(default=1, ge=1)
    batch_rows: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    embedding_learning_rate: float = Field(default=0.05, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    task_weights: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    weighting: SerializeAsAny[WeightingOptions] = FixedOptions()
    regulariser: SerializeAsAny[RegulariserOptions] | None = None
    schedule: SerializeAsAny[ScheduleOptions] = JointOptions()
    positive_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    negative_rate: Share = 1.0
    evaluations_per_epoch: int = Field(default=1, ge=1, le=1000)
    patience: int = Field(default=3, ge=1, description="evaluations without a better validation loss before stopping")
    average: int = Field(default=1, ge=1, le=1000, description="evaluations over which the weights are averaged")
    threads: int | None = Field(default=None, ge=1)

    @field_validator("weighting", "regulariser", "schedule", mode="before")
    @classmethod
    def _choose(cls, value: Any, info: ValidationInfo) -> Any:
        return chosen(value, f"training.{info.field_name}")

    @model_validator(mode="after")
    def _choices_compose(self) -> Self:
        check_objective(self.objective, self.escm2)
        schedule = entry_of(SCHEDULES, self.schedule)
        if schedule.one_task and self.weighting.kind != "fixed":
            raise ValueError(
                f"the schedule {self.schedule.kind!r} trains one task at a time, which leaves the weighting "
                f"{self.weighting.kind!r} nothing to weigh: choose one of the two"
            )
        return self


class TruthOptions(Frozen):
    """A file with the true probabilities, known for simulated logs; read after training, never during it.

    `columns` gives for each output's name the column with its true probability; `key` joins it to the log.
    """

    path: str
    key: str
    columns: dict[str, str]


class EvaluationOptions(Frozen):
    """`group`: the column within which GAUC ranks. `slices`: columns whose calibration the card shows."""

    group: str | None = None
    slices: tuple[str, ...] = ()
    truth: TruthOptions | None = None
    resamples: int = Field(default=100, ge=10, le=10_000)


class Run(Frozen):
    """A training run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "1"
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**31)
    bundle: BundleOptions = BundleOptions()
    data: DataOptions
    split: SplitOptions = SplitOptions()
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    tasks: tuple[Task, ...] = CLICK_AND_CONVERSION
    model: SerializeAsAny[Options]
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    @field_validator("model", mode="before")
    @classmethod
    def _choose_architecture(cls, value: Any) -> Any:
        return chosen(value, "model")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_features(self.features)
        check_tasks(self.tasks)
        names = [task.name for task in self.tasks]
        check_choices(self.model, self.training.schedule, self.training.regulariser)
        check_steps(self.model, self.features)
        by_task = {key: getattr(self.training, key) for key in ("task_weights", "positive_weights")}
        if isinstance(self.training.weighting, FixedOptions):
            by_task["weighting.growth"] = self.training.weighting.growth
        for key, given in by_task.items():
            for name in given:
                if name not in names:
                    raise ValueError(f"training.{key} names {name!r}, which is no task{nearest(name, names)}")
        reserved = {ROW_USER, *(output.name for output in outputs(self.tasks))}
        labels = {task.label for task in self.tasks}
        for feature in self.features:
            if feature.name in labels:
                raise ValueError(f"{feature.name!r} is both a feature and a label")
            if feature.name in reserved:
                raise ValueError(f"a feature cannot be named {feature.name!r}, which the model's graph uses itself")
        return self

    @property
    def target(self) -> Path:
        """The bundle's directory."""
        return Path(self.bundle.directory) / self.name / self.version


def load_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Load a run file; an override is `key.path=value` with the value in TOML (or a bare string).

    Raises: SourceMissing, RunInvalid, UnknownKey.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SourceMissing(
            f"cannot be read ({error.strerror})", place=str(path), remedy="give the path of a run file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunInvalid(f"not TOML: {error}", place=str(path), remedy="mend that line") from None
    for override in overrides:
        _override(document, override)
    return parse_run(document, place=str(path))


def parse_run(document: dict[str, Any], *, place: str = "run") -> Run:
    """Check a run's keys and values.

    Raises: RunInvalid, UnknownKey.
    """
    try:
        return Run.model_validate(document)
    except ValidationError as error:
        raise _explained(error, document, place) from None
    except RunInvalid as error:  # of the contract, which knows no file
        raise RunInvalid(error.fact, place=f"{place}, {error.place}", remedy=error.remedy) from None


def expand(path: str) -> str:
    """Expand `~` and `$VARIABLES` in a path. Raises: RunInvalid."""
    expanded = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 (globs and URLs are no Path)
    if "$" in expanded:
        raise RunInvalid(
            "names an environment variable that is not set", place=f"path {path!r}", remedy="set it, or write the path"
        )
    return expanded


def _override(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise RunInvalid(f"{override!r} is not key=value", place="--set", remedy="write --set training.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    table: Any = document
    for parent in parents:
        table = table.setdefault(parent, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise RunInvalid(f"{key!r} does not lead through tables", place="--set", remedy="set a key of a table")
    table[last] = value


def _explained(error: ValidationError, document: Any, place: str) -> RunInvalid:
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    location = [part for part in first["loc"] if part not in KINDS]
    where = f"{place}, {_path(location, document)}" if location else place
    if first["type"] == "extra_forbidden":
        hint = nearest(str(location[-1]), _table(first["loc"][:-1], document).model_fields)
        return UnknownKey(f"no such key{hint}", place=where, remedy="correct or remove it")
    cause = first.get("ctx", {}).get("error")
    return RunInvalid(
        str(cause) if cause else first["msg"], place=where, remedy="docs/run-file.md says what may stand there"
    )


def _path(location: Sequence[Any], document: Any) -> str:
    """`features[2] ('price').bins`: indices, with the name of what they index."""
    text = ""
    for part in location:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            document = None
        if isinstance(part, int):
            name = document.get("name") if isinstance(document, dict) else None
            text += f"[{part}]" + (f" ({name!r})" if name else "")
        else:
            text += f".{part}" if text else str(part)
    return text


KINDS: dict[Any, type[Frozen]] = {"categorical": Categorical, "numeric": Numeric, "sequence": SequenceFeature}
TABLES: dict[Any, type[Frozen]] = {
    "bundle": BundleOptions,
    "data": DataOptions,
    "split": SplitOptions,
    "training": TrainingOptions,
    "escm2": Escm2Options,
    "evaluation": EvaluationOptions,
    "truth": TruthOptions,
    "tasks": Task,
}


def _table(location: Sequence[Any], document: Any) -> type[Frozen]:
    """The model of the table at `location`; that of a choice depends on what is chosen."""
    path = ".".join(str(part) for part in location)
    if path in CHOICES:
        registry, key = CHOICES[path]
        for part in location:
            document = document[part]
        options: type[Frozen] = next(e.options_type for e in registry if name_of(e) == document[key])
        return options
    known = {**TABLES, **KINDS}
    return next((known[part] for part in reversed(location) if part in known), Run)
