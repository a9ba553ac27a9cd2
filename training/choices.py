"""What a run file chooses by name: architecture, weighting, regulariser, schedule.

Knows the registries, and what an entry demands of the others. Does not know what is done with them.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from contract.features import Feature, Frozen
from contract.features import Sequence as SequenceFeature
from models.architecture import Options
from models.registry import ARCHITECTURES
from training.regularisers.registry import REGULARISERS
from training.schedules.registry import SCHEDULES
from training.weightings.registry import WEIGHTINGS

CHOICES: dict[str, tuple[Sequence[type[Any]], str]] = {
    "model": (ARCHITECTURES, "architecture"),
    "training.weighting": (WEIGHTINGS, "kind"),
    "training.regulariser": (REGULARISERS, "kind"),
    "training.schedule": (SCHEDULES, "kind"),
}


def chosen(value: Any, path: str) -> Any:
    """A table's options, of the entry of a registry that it names."""
    if not isinstance(value, dict):
        return value
    registry, key = CHOICES[path]
    names = [name_of(entry) for entry in registry]
    if value.get(key) not in names:
        raise ValueError(f"`{key}` must be one of {', '.join(names)}{nearest(str(value.get(key)), names)}")
    return next(entry.options_type for entry in registry if name_of(entry) == value[key]).model_validate(value)


def entry_of(registry: Sequence[type[Any]], options: Frozen) -> Any:
    """The entry of a registry that these options are of."""
    return next(entry for entry in registry if entry.options_type is type(options))


def name_of(entry: type[Any]) -> str:
    """The name by which a run file asks for an entry of a registry."""
    fields = entry.options_type.model_fields
    return str(fields["architecture" if "architecture" in fields else "kind"].default)


def nearest(word: str, known: Iterable[str]) -> str:
    """In brackets the known word that was probably meant, if there is one."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choices(model: Frozen, schedule: Frozen, regulariser: Frozen | None) -> None:
    """Raises: ValueError, with the reason, when the schedule or the regulariser cannot work on the architecture."""
    architecture, chosen_ones = entry_of(ARCHITECTURES, model), [("schedule", entry_of(SCHEDULES, schedule))]
    if regulariser:
        chosen_ones.append(("regulariser", entry_of(REGULARISERS, regulariser)))
    for key, entry in chosen_ones:
        if not issubclass(architecture, entry.needs):
            able = [name_of(other) for other in ARCHITECTURES if issubclass(other, entry.needs)]
            raise ValueError(
                f"training.{key} {name_of(entry)!r} does not go with the architecture {name_of(architecture)!r}: "
                f"{entry.because} ({', '.join(able)})"
            )


def check_steps(model: Options, features: Iterable[Feature]) -> None:
    """Raises: ValueError when the sequence that the architecture reads step by step is not one of the user's."""
    sequences = [f for f in features if isinstance(f, SequenceFeature) and f.side == "user" and f.along is None]
    names = [f.name for f in sequences]
    if model.steps is not None and model.steps not in names:
        raise ValueError(
            f"model.sequence names {model.steps!r}, which is no sequence of the user's side that runs along no other"
            f"{nearest(model.steps, names)}"
        )
