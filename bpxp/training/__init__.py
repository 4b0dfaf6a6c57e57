"""A fit: the trainer, its set-up, its progress, and how it is resumed."""
