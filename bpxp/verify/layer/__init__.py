"""A layer of one's own beside the rules that layers keep."""
