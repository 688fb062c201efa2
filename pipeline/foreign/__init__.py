"""What was not built here and is to become a guest of ours: surveyed, mended, taken in."""
