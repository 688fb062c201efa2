"""A night: every golden image built, proven, published, compared with the last one, and told of."""
