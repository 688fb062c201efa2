"""What will hurt on a Xen host, each with its fix, and what we left lying about (doit doctor).

`facts.py` reads the machine, `pitfalls.py`, `advisories.py`, `guests.py` and `loaders.py` judge
without looking at it, and `leftovers.py` removes what our own killed commands left.
"""
