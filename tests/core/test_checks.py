"""Validation of hyper-parameters: what is accepted, what is refused, and which range the message names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bpxp.core import checks
from bpxp.core.memory import Memory
from bpxp.errors import InvalidTypeError, InvalidValueError, ParameterMemoryError


@pytest.mark.parametrize("value", [1, np.int32(1), 10**30])
def test_a_whole_number_becomes_an_int(value):
    found = checks.positive_int(value, "f(n=…)")
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_what_is_no_whole_number(value):
    with pytest.raises(InvalidTypeError, match=rf"f\(n=…\): not an int: got {type(value).__name__}"):
        checks.positive_int(value, "f(n=…)")


def test_a_whole_number_below_one():
    with pytest.raises(InvalidValueError, match=r"f\(n=…\): must be >= 1: got 0"):
        checks.positive_int(0, "f(n=…)")


@pytest.mark.parametrize("value", [2, np.float32(2.0), Fraction(2)])
def test_a_number_becomes_a_float(value):
    found = checks.number(value, "f(x=…)")
    assert found == 2.0
    assert type(found) is float


@pytest.mark.parametrize("value", [True, "2", None, np.ones(1), 2j])
def test_what_is_no_number(value):
    with pytest.raises(InvalidTypeError, match=rf"f\(x=…\): not a number: got {type(value).__name__}"):
        checks.number(value, "f(x=…)")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_no_bounds_means_any_finite_number(value):
    shown = repr(value) if isinstance(value, float) else repr(math.copysign(math.inf, value // 10**399))
    with pytest.raises(InvalidValueError, match=rf"f\(x=…\): out of range: got {shown}, expected a finite number\."):
        checks.number(value, "f(x=…)")


def test_bounds_belong_to_the_range_unless_it_is_open():
    low, high = 1.0, 4.0
    for low_open in (False, True):
        for high_open in (False, True):
            options = {"low": low, "high": high, "low_open": low_open, "high_open": high_open}
            options = {name: value for name, value in options.items() if value}  # closed, unless said otherwise
            said = f"a number in {'(' if low_open else '['}1, 4{')' if high_open else ']'}"
            for value in (0.5, 1.0, 1.5, 4.0, 4.5):
                if low < value < high or value == (None if low_open else low) or value == (None if high_open else high):
                    assert checks.number(value, "f", **options) == value
                else:
                    with pytest.raises(InvalidValueError, match=re.escape(f"got {value}, expected {said}.")):
                        checks.number(value, "f", **options)


@pytest.mark.parametrize(("low_open", "sign"), [(False, ">="), (True, ">")])
def test_a_range_without_an_upper_end(low_open, sign):
    with pytest.raises(InvalidValueError, match=rf"got -1\.0, expected a finite number {sign} 0\."):
        checks.number(-1, "f", low=0.0, low_open=low_open)


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_a_path(value):
    assert checks.as_path(value, "save(path)") == Path("a/b")


@pytest.mark.parametrize("value", [3, None, b"a"])
def test_what_is_no_path(value):
    with pytest.raises(InvalidTypeError, match=rf"save\(path\): not a path: got {type(value).__name__}"):
        checks.as_path(value, "save(path)")


class Unit:
    """What the names of the next test stand for."""


def test_a_name_stands_for_what_is_in_the_table():
    table = {"one": Unit(), "two": Unit()}

    def resolve(value):
        return checks.resolve(value, Unit, table, "f(name)", fix="name='one'")

    assert resolve("two") is table["two"]
    own = Unit()
    assert resolve(own) is own
    says = r"f\(name\): unknown name: got 'tow', expected one of one, two.*Did you mean 'two'\?"
    with pytest.raises(InvalidValueError, match=says):
        resolve("tow")
    for wrong, shown in ((3, "int 3"), (None, "NoneType None"), (Unit, "type <class")):
        with pytest.raises(
            InvalidTypeError, match=rf"f\(name\): neither a name nor an? Unit: got {shown}.*Fix: name='one'"
        ):
            resolve(wrong)


def test_fields_of_a_frozen_dataclass_are_kept_as_python_numbers():
    @dataclass(frozen=True)
    class Thing:
        rate: float
        count: int = 1

        def __post_init__(self):
            checks.set_numbers(self, "rate", low=0.0)
            checks.set_counts(self, "count")

    thing = Thing(np.float64(0.5), np.int64(3))
    assert (type(thing.rate), type(thing.count)) == (float, int)
    with pytest.raises(
        InvalidValueError, match=r"Thing\(rate=…\): out of range: got -1.0, expected a finite number >= 0"
    ):
        Thing(-1.0)
    with pytest.raises(InvalidValueError, match=r"Thing\(count=…\): must be >= 1"):
        Thing(1.0, 0)


def test_parameters_fit_or_do_not_fit_into_what_is_free(monkeypatch):
    free = 1_000 << 30
    monkeypatch.setattr(checks, "host_memory", lambda: Memory(free, 2 * free))
    checks.fits_in_memory(free // 8, "Dense")
    with pytest.raises(ParameterMemoryError, match=r"Dense: needs 1,000 GiB of parameters, 1,000 GiB available"):
        checks.fits_in_memory(free // 8 + 1, "Dense")
    monkeypatch.setattr(checks, "host_memory", lambda: Memory(int(1.4 * 2**30), 2 << 30))
    with pytest.raises(ParameterMemoryError, match=r"needs 2 GiB of parameters, 1 GiB available"):
        checks.fits_in_memory(3 << 26, "Dense")  # 1.5 GiB


def test_a_system_of_unknown_memory_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(checks, "host_memory", lambda: None)
    checks.fits_in_memory(10**15, "Dense")


def test_the_system_is_not_asked_for_a_few_parameters(monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "host_memory", lambda: asked.append(1))
    checks.fits_in_memory(checks.PLENTY // 8 - 1, "Dense")
    assert not asked
    checks.fits_in_memory(checks.PLENTY // 8, "Dense")
    assert asked
