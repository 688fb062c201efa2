"""The words of the command line that are not stages: a table a module, named WORDS."""

from __future__ import annotations

from pipeline.commands import build, install, mirrors, prove, store
from pipeline.commands.command import Word

TABLES = (
    build.WORDS,
    prove.WORDS,
    install.WORDS,
    store.WORDS,
    mirrors.WORDS,
)
_ALL = tuple(word for table in TABLES for word in table)
OPTIONS = frozenset(option for word in _ALL if not word.is_of_host for option in word.options)
SPEC_WORDS = frozenset(word.name for word in _ALL if not word.is_of_host)
READING_WORDS = frozenset(word.name for word in _ALL if word.only_reads)
HOST_WORDS = {word.name: word for word in _ALL if word.is_of_host}

__all__ = [
    "HOST_WORDS",
    "OPTIONS",
    "READING_WORDS",
    "SPEC_WORDS",
    "TABLES",
    "Word",
    "build",
    "install",
    "mirrors",
    "prove",
    "store",
]
