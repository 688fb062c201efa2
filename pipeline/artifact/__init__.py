"""A finished guest as a folder: its record, its sums, its published versions."""
