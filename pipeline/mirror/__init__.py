"""Debian archives as a mirror serves them: sources, signed Release files, package indexes."""
