"""Things on the build host that must be undone."""
