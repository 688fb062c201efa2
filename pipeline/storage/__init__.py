"""What a guest boots from, besides a plain copy of the golden image."""
