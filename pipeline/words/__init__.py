"""The words of the command line that are not stages: a table a module, named WORDS."""

from __future__ import annotations

from pipeline.words import building, keeping, living, planning, proving, supplying
from pipeline.words.word import Word

TABLES = (
    building.WORDS,
    proving.WORDS,
    living.WORDS,
    keeping.WORDS,
    planning.WORDS,
    supplying.WORDS,
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
    "building",
    "keeping",
    "living",
    "planning",
    "proving",
    "supplying",
]
