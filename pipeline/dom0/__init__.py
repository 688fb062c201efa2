"""A guest's life on its host: installed, started, refreshed, resized, rebuilt, removed.

What is decided (plans, rules, texts) is apart from what is carried out; every change goes through
a journal (`journal.py`), so that a killed command leaves the old guest or the new one.
"""
