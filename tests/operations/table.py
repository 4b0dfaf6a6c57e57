"""The operation table: one record for each public operation, from which the generic suites run.

A record holds what no suite could guess: which numbers a layer takes, what it refuses, what each option may be changed
to, where its derivative jumps and what it is there, and a reference with any number of digits. The suites are

===================  ==================================================================================================
`test_table`         every public name has a record, and every record says what its options may be
`test_bad_inputs`    what is refused is refused, by the right error, with the name of the argument
`test_gradients`     hand-derived gradients against differences and the complex step: records, and a grid of networks
`test_fifty_digits`  the core against differences with fifty digits
`test_values`        values against the reference, on every backend, in each dtype
`test_extremes`      zeros, subnormals, ±1e4, the largest numbers: values and slopes with mpmath, warnings are errors
`test_kinks`         what the backward pass says where there is no derivative
`test_purity`        inputs are only read, backward twice gives the same bits, nothing shares memory
`test_options`       each option changes a result
`test_relations`     what must not change when a batch, a network or a number is rearranged
`test_suites`        that the suites see mistakes
===================  ==================================================================================================

`tests/oracles/test_four_ways.py` differentiates the same records with torch and JAX. What `bpxp verify` runs, one of
everything beside its equations, is `bpxp.verify.equations.catalogue`; the table holds each thing of it.
"""

from __future__ import annotations

import pytest
from operations.activations import ACTIVATIONS
from operations.host import FUNCTIONS, INITIALIZERS, METRICS
from operations.layers import LAYERS
from operations.losses import LOSSES
from operations.rules import OPTIMIZERS, SCHEDULES

TABLE = [*LAYERS, *ACTIVATIONS, *LOSSES, *OPTIMIZERS, *SCHEDULES, *INITIALIZERS, *FUNCTIONS, *METRICS]
RECORDS = {record.name: record for record in TABLE}


def over(*families):
    """Run a test for each record of the families."""
    return pytest.mark.parametrize("record", [record for family in families for record in family], ids=str)
