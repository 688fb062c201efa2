"""Each release, built as a user builds it."""
