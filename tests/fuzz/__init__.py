"""Fuzzing: random inputs, made from good ones, to all that reads what it has not written; see `fuzz.__main__`."""

from fuzz.arguments import Arguments, Line
from fuzz.descriptions import Config, RunFile
from fuzz.files import CheckpointFile, Idx, IdxGz

TARGETS = {target.name: target for target in (Idx, IdxGz, CheckpointFile, RunFile, Config, Line, Arguments)}
