"""The store: fingerprint -> artifact folder; what of it may go."""
