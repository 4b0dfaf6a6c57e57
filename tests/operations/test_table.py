"""The table is whole: every public name has a record, and every record says what its options may be."""

from __future__ import annotations

import inspect

import pytest
from operations.record import OfLayer, OfLoss
from operations.table import ACTIVATIONS, LOSSES, TABLE, over

from bpxp import metrics, nn, optim
from bpxp.nn import activations, functions, initializers, losses
from bpxp.verify.equations.catalogue import catalogue

PROTOCOLS = {"Layer", "Loss", "Metric", "Schedule", "Optimizer", "Initializer", "Activation"}
ROOMS = [nn, activations, losses, initializers, functions, optim, metrics]


def public(room):
    """Names that the room lists; of one without a list, what is defined there."""
    if hasattr(room, "__all__"):
        return set(room.__all__)
    own = {name for name, thing in vars(room).items() if getattr(thing, "__module__", "") == room.__name__}
    return {name for name in own if not name.startswith("_")}


def unrecorded(room):
    return public(room) - {name for record in TABLE for name in record.stands_for}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_public_name_has_a_record(room):
    assert unrecorded(room) == set()


def test_public_names_are_counted(promise):
    missing = set().union(*map(unrecorded, ROOMS))
    count = len(set().union(*map(public, ROOMS)))
    promise("Public names of the mathematics without a record in the operation table", f"{len(missing)} of {count}")
    assert not missing


def test_a_name_without_a_record_is_found():
    assert unrecorded(inspect) >= {"signature"}


def test_names_are_unique_and_are_those_of_the_things():
    names = [record.name for record in TABLE]
    assert len(set(names)) == len(names)
    for record in TABLE:
        own = record.thing if inspect.isroutine(record.thing) else type(record.thing)
        assert record.name.replace(",", " ").split()[0] == own.__name__


def test_registries_hold_only_what_has_a_record():
    for registry in (nn.ACTIVATIONS, nn.LOSSES, nn.INITIALIZERS, optim.OPTIMIZERS, metrics.METRICS):
        for thing in registry.values():
            assert type(thing) in {type(record.thing) for record in TABLE}


def test_the_catalogue_of_bpxp_verify_holds_a_part_of_the_table():
    assert {type(thing) for thing in catalogue().values()} <= {type(record.thing) for record in TABLE}
    stated = {type(record.thing) for record in TABLE if hasattr(type(record.thing), "equations")}
    assert stated == {type(thing) for thing in catalogue().values()}


@over(TABLE)
def test_every_option_has_other_values_in_a_record(record):
    same = [other for other in TABLE if type(other.thing) is type(record.thing)]
    known = {name for other in same for name, values in other.options.items() if values}
    assert set(record.fields) <= known
    assert all(name in record.fields for name in (*record.options, *record.bad))


# A switch is what Python takes for true or false; a choice of three words is refused with its own message.
UNCHECKED = {"nesterov", "decay_biases", "bias", "per_class", "approximate", "layers"}


@over(TABLE)
def test_every_option_has_values_that_are_refused(record):
    same = [other for other in TABLE if type(other.thing) is type(record.thing)]
    assert set(record.fields) - UNCHECKED <= {name for other in same for name in other.bad}


def test_what_has_a_derivative_has_a_reference_and_says_where_there_is_none():
    for record in (*ACTIVATIONS, *LOSSES):
        assert isinstance(record, (OfLayer, OfLoss))
        assert record.value is not None
        assert record.slope is not None
        assert len(record.kinks) >= len(record.jumps)
