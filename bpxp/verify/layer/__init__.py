"""A layer of your own, checked against the rules of layers."""
