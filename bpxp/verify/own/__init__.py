"""A loss, a metric or an optimizer of your own, checked against the rules."""
