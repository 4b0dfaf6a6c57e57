"""array-api-strict: the standard held to the letter, for tests."""
