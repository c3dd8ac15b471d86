"""Components check their own fields and say in words what is wrong."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Annotated

import pytest
from annotated_types import Gt, Interval

from hemiola.algorithms.registry import COMPONENTS
from hemiola.component import component
from hemiola.errors import OptionError
from hemiola.optim import SGD, Constant, Schedule


@component
class Spring:
    """A spring."""

    stiffness: Annotated[float, Gt(0)]
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    turns: int = 3
    soft: bool = False
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self):
        if self.turns > 100:
            raise OptionError("a spring has at most 100 turns.")


def test_fields_keep_what_is_given_and_read_text_as_numbers():
    assert Spring(2.0) == Spring(stiffness="2") == Spring("2.0", "0.5", "3", "false")
    assert isinstance(Spring("2").stiffness, float)
    assert Spring(1, soft="true").soft is True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spring(0.0), "Spring: stiffness should be greater than 0, not 0.0."),
        (lambda: Spring("hard"), "Spring: stiffness should be a valid number, not 'hard'."),
        (lambda: Spring(1.0, share=2), "Spring: share should be less than or equal to 1, not 2."),
        (lambda: Spring(1.0, turns=1.5), "Spring: turns should be a valid integer"),
        (lambda: Spring(1.0, soft="perhaps"), "Spring: soft should be a valid boolean"),
        (lambda: Spring(1.0, size=3), "Spring: there is no option 'size'."),
        (lambda: Spring(1.0, turns=101), "Spring: a spring has at most 100 turns."),
        (lambda: Spring(1.0, schedule=3), "Spring: schedule should be callable, not 3."),
    ],
)
def test_what_is_wrong_is_said_in_words(make, message):
    with pytest.raises(OptionError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("value", ["nan", float("nan")])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(OptionError):
        Spring(1.0, share=value)
    with pytest.raises(OptionError):
        Spring(value)


def test_a_rate_must_be_finite():
    for value in (float("inf"), "inf", float("nan")):
        with pytest.raises(OptionError, match="SGD: lr"):
            SGD(value)


def test_components_are_frozen_and_compare_by_value():
    with pytest.raises(FrozenInstanceError):
        Spring(1.0).turns = 5
    assert Spring(1.0) != Spring(2.0)
    assert hash(Spring(1.0)) == hash(Spring(1.0))
    assert replace(Spring(1.0), turns=4).turns == 4
    with pytest.raises(OptionError):
        replace(Spring(1.0), share=3.0)


def test_components_tell_their_names_and_fields():
    assert Spring.__doc__ == "A spring."
    assert list(inspect.signature(Spring).parameters) == [entry.name for entry in fields(Spring)]
    assert repr(SGD(0.1)) == "SGD(lr=0.1, schedule=Constant())"


@pytest.mark.parametrize("kind", [kind for known in COMPONENTS.values() for kind in known.values()])
def test_every_component_has_defaults_that_are_valid_and_pickle(kind):
    made = kind()
    assert pickle.loads(pickle.dumps(made)) == made
    assert replace(made) == made
