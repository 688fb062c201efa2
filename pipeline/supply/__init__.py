"""What is said of an artifact and signed: its packages, what it was made of, its proof."""
