"""Text tables."""

from bpxp.core.text import table


def test_columns_are_aligned():
    rows = [("name", "size"), ("x", "12345"), ("a long one", "")]
    assert table(rows) == "name        size\nx           12345\na long one"
    assert table(rows, numbers=True) == "      name   size\n         x  12345\na long one"
    assert table(rows[:1]) == "name  size"
