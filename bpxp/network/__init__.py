"""The network, its steps, and what is known of it before it runs."""
