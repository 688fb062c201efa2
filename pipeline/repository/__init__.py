"""The image repository: what was published, as a tree that a dom0 trusts by its metadata alone."""
