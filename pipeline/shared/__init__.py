"""A store that several machines share: what one has built, the others need not."""
