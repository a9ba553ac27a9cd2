"""contract/errors.py: every error says a fact, a place and a remedy, and the tree in its docstring is the tree."""

import copy
import pickle
import re

import pytest

from contract import errors
from contract.errors import FullfunnelError, LengthMismatch, SeveralInvalid, UnknownFeature

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, FullfunnelError)]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    parents: dict[str, str] = {}
    branch = ""
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^(    (?:│   |    )?)[├└]── (\w+(?:  \w+)*)", line)
        if found is None:
            continue
        deep = len(found[1]) > 4
        for name in found[2].split("  "):
            parents[name] = branch if deep else "FullfunnelError"
        branch = branch if deep else found[2]
    assert parents == {cls.__name__: cls.__mro__[1].__name__ for cls in CLASSES if cls is not FullfunnelError}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_when_it_is_raised(cls: type[FullfunnelError]) -> None:
    assert cls.__doc__


def test_what_is_not_known_is_left_out_of_the_sentence() -> None:
    assert str(FullfunnelError("it broke")) == "it broke."
    assert str(FullfunnelError("it broke", place="here")) == "here: it broke."
    assert str(FullfunnelError("it broke", remedy="mend it")) == "it broke. Remedy: mend it."


SEVERAL = SeveralInvalid([UnknownFeature("no such feature", place="user.a", remedy="drop it"), LengthMismatch("short")])


@pytest.mark.parametrize("error", [UnknownFeature("no such feature", place="user.a", remedy="drop it"), SEVERAL])
def test_an_error_survives_the_way_to_another_process(error: FullfunnelError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert (other.fact, other.place, other.remedy) == (error.fact, error.place, error.remedy)


def test_several_errors_are_told_in_the_order_found() -> None:
    lines = str(SEVERAL).splitlines()
    assert lines[0] == "2 things are wrong with the request:"
    assert lines[1:] == ["  user.a: no such feature. Remedy: drop it.", "  short."]
