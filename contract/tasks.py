"""Tasks: the steps of the funnel, and the names under which their probabilities are answered.

Knows labels and order. Does not know losses or logits.
"""

from typing import Literal

from pydantic import Field

from contract.errors import RunInvalid
from contract.features import Frozen, Name


class Task(Frozen):
    """One step: `label` is its column, `given` the task it is conditional on.

    A label column holds 0 and 1 (or false and true), unless `positive` lists the values that count as 1.
    """

    name: Name
    label: Name
    given: str | None = None
    positive: tuple[int | str, ...] | None = Field(default=None, min_length=1)


class Output(Frozen):
    """One answered probability."""

    name: str
    task: str
    kind: Literal["conditional", "joint"] = Field(description="P(task | given), or P(task), the product along `given`")


CLICK_AND_CONVERSION = (
    Task(name="click", label="click"),
    Task(name="conversion", label="conversion", given="click"),
)


def check_tasks(tasks: tuple[Task, ...]) -> None:
    """Check that names are unique, `given` names an earlier task, and no two outputs get one name.

    Raises: RunInvalid.
    """
    if not tasks:
        raise RunInvalid("no task", place="tasks", remedy="declare at least one [[tasks]]")
    seen: set[str] = set()
    for task in tasks:
        if task.name in seen:
            raise RunInvalid("two tasks of this name", place=f"task {task.name!r}", remedy="rename one")
        if task.given is not None and task.given not in seen:
            raise RunInvalid(
                f"`given = {task.given!r}` does not name an earlier task",
                place=f"task {task.name!r}",
                remedy="declare the tasks in the order of the funnel",
            )
        seen.add(task.name)
    names = [output.name for output in outputs(tasks)]
    for output in outputs(tasks):
        if names.count(output.name) > 1:
            raise RunInvalid(
                f"two outputs would be called {output.name!r}", place=f"task {output.task!r}", remedy="rename the task"
            )


def ancestry(tasks: tuple[Task, ...]) -> tuple[tuple[int, ...], ...]:
    """For each task the indices along `given`, itself last.

    >>> ancestry(CLICK_AND_CONVERSION)
    ((0,), (0, 1))
    """
    index = {task.name: i for i, task in enumerate(tasks)}
    chains: list[tuple[int, ...]] = []
    for i, task in enumerate(tasks):
        chains.append((*(chains[index[task.given]] if task.given else ()), i))
    return tuple(chains)


def outputs(tasks: tuple[Task, ...]) -> tuple[Output, ...]:
    """What a model of these tasks answers, in order.

    >>> [output.name for output in outputs(CLICK_AND_CONVERSION)]
    ['pctr', 'pcvr', 'pctcvr']
    >>> [output.name for output in outputs((Task(name="open", label="o"), Task(name="ack", label="a", given="open")))]
    ['p_open', 'p_ack_given_open', 'p_ack']
    """
    short = {("click", None): "ctr", ("conversion", "click"): "cvr"}
    classic = {(task.name, task.given) for task in tasks} == set(short)
    answered: list[Output] = []
    for task in tasks:
        if classic:
            answered.append(Output(name=f"p{short[task.name, task.given]}", task=task.name, kind="conditional"))
        else:
            suffix = f"_given_{task.given}" if task.given else ""
            answered.append(Output(name=f"p_{task.name}{suffix}", task=task.name, kind="conditional"))
        if task.given:
            name = "pctcvr" if classic else f"p_{task.name}"
            answered.append(Output(name=name, task=task.name, kind="joint"))
    return tuple(answered)
