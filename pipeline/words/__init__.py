"""The words of the command line that are not stages: a table a module, named WORDS."""

from __future__ import annotations

from pipeline.words import building, keeping, supplying
from pipeline.words.word import Word

TABLES = (building.WORDS, keeping.WORDS, supplying.WORDS)
OPTIONS = frozenset(option for table in TABLES for word in table for option in word.options)

__all__ = ["OPTIONS", "TABLES", "Word", "building", "keeping", "supplying"]
