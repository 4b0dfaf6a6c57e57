"""What cannot work is refused where it is written: by an error that names the argument, and says what was got."""

from __future__ import annotations

import dataclasses

import pytest
from operations.table import TABLE, over

from bpxp.errors import BpxpError

# What an argument is called in a message that a name was looked up for.
ALSO = {"initializer": "init", "k": "TopK"}


@over([record for record in TABLE if record.bad])
def test_bad_options_are_refused(record):
    for name, values in record.bad.items():
        for value in values:
            with pytest.raises((ValueError, TypeError)) as caught:
                dataclasses.replace(record.thing, **{name: value})
            assert isinstance(caught.value, BpxpError), f"{name}={value!r}"
            text = str(caught.value)
            assert name in text or ALSO.get(name, name) in text, f"{name}={value!r}: {text}"


@over([record for record in TABLE if record.refuses])
def test_calls_that_cannot_work_are_refused(record):
    for call, kind, text in record.refuses:
        with pytest.raises(kind, match=text) as caught:
            call()
        assert isinstance(caught.value, BpxpError)
