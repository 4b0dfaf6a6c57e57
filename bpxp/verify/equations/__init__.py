"""Code compared with its equations."""
