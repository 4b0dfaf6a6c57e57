"""All exhibits, in the order of the catalogue."""

from museum import fits, gradients, layers, modes, rules

EXHIBITS = [*gradients.EXHIBITS, *layers.EXHIBITS, *modes.EXHIBITS, *rules.EXHIBITS, *fits.EXHIBITS]
