"""The guest half: identity, network files, passwords, and the domain that xl reads."""
