"""The file: its format, its header, and a network in it."""
