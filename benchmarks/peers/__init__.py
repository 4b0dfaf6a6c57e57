"""Programs that measure one thing in one library, each in a process of its own, and print it as a line of JSON."""
