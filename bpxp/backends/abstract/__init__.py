"""Arrays that have a shape and a dtype, and no numbers."""
