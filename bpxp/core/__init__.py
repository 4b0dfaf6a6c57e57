"""What everything may use: trees, argument checks, random numbers, host memory, atomic files."""
