"""A kernel as a guest boots it: made out of packages or files, in a cage."""
