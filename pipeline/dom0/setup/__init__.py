"""doit dom0: a Debian machine made a Xen host, as one change that is planned, shown and undoable.

`host_settings.py` is what dom0.toml says, `host_view.py` the host as its files are, and every part
(`parts.py`) renders of the two the files as they are to be, which its own readers check.
"""
