"""Checks of what users pass as samples, targets and weights."""
