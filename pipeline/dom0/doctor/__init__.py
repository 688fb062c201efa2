"""doit doctor: what will hurt on this host, each with its fix, and what we left lying about.

`facts.py` reads the machine, `pitfalls.py` and `guests.py` judge without looking at it, and
`leftovers.py` removes what our own killed commands left.
"""
