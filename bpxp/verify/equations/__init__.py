"""The code beside its equations."""
