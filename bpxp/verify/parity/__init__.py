"""Backends compared with float64."""
