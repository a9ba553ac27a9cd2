"""contract/tasks.py: the funnel's order, and the names of its probabilities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.errors import RunInvalid
from contract.tasks import CLICK_AND_CONVERSION, Task, ancestry, check_tasks, outputs

FUNNEL = (
    Task(name="click", label="c"),
    Task(name="cart", label="a", given="click"),
    Task(name="purchase", label="p", given="cart"),
    Task(name="like", label="l"),
)


@st.composite
def funnels(draw: st.DrawFn) -> tuple[Task, ...]:
    """Tasks that may each be conditional on any earlier one."""
    count = draw(st.integers(1, 8))
    parents = [draw(st.one_of(st.none(), st.integers(0, i - 1)) if i else st.none()) for i in range(count)]
    return tuple(Task(name=f"t{i}", label=f"l{i}", given=None if p is None else f"t{p}") for i, p in enumerate(parents))


@given(funnels())
def test_an_ancestry_leads_from_a_task_without_condition_to_the_task_itself(tasks: tuple[Task, ...]) -> None:
    check_tasks(tasks)
    for index, (task, chain) in enumerate(zip(tasks, ancestry(tasks), strict=True)):
        assert chain[-1] == index
        assert tasks[chain[0]].given is None
        assert [tasks[i].name for i in chain[:-1]] == [tasks[i].given for i in chain[1:]]
        assert task.given == (tasks[chain[-2]].name if len(chain) > 1 else None)


@given(funnels())
def test_every_task_answers_its_conditional_and_if_it_has_a_condition_the_joint(tasks: tuple[Task, ...]) -> None:
    answered = outputs(tasks)
    assert len({output.name for output in answered}) == len(answered)
    assert [output.task for output in answered if output.kind == "conditional"] == [task.name for task in tasks]
    assert [o.task for o in answered if o.kind == "joint"] == [task.name for task in tasks if task.given]


def test_click_and_conversion_have_the_names_everybody_knows() -> None:
    assert [(o.name, o.task, o.kind) for o in outputs(CLICK_AND_CONVERSION)] == [
        ("pctr", "click", "conditional"),
        ("pcvr", "conversion", "conditional"),
        ("pctcvr", "conversion", "joint"),
    ]


def test_other_funnels_spell_their_conditions_out() -> None:
    assert [output.name for output in outputs(FUNNEL)] == [
        "p_click",
        "p_cart_given_click",
        "p_cart",
        "p_purchase_given_cart",
        "p_purchase",
        "p_like",
    ]


def test_a_label_has_other_names_for_one() -> None:
    assert Task(name="open", label="status", positive=(1, 2)).positive == (1, 2)
    with pytest.raises(ValidationError):
        Task(name="open", label="status", positive=())


@pytest.mark.parametrize(
    ("tasks", "fact", "place"),
    [
        ((), "no task", "tasks"),
        ((FUNNEL[0], FUNNEL[0]), "two tasks", "task 'click'"),
        ((FUNNEL[1], FUNNEL[0]), "earlier task", "task 'cart'"),
        ((Task(name="click", label="c", given="click"),), "earlier task", "task 'click'"),
        (
            (FUNNEL[0], FUNNEL[1], Task(name="cart_given_click", label="x")),
            "two outputs would be called 'p_cart_given_click'",
            "task 'cart'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tasks_that_make_no_funnel_are_refused(tasks: tuple[Task, ...], fact: str, place: str) -> None:
    with pytest.raises(RunInvalid) as caught:
        check_tasks(tasks)
    assert fact in caught.value.fact
    assert caught.value.place == place
    assert caught.value.remedy
