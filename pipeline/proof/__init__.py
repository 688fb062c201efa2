"""Proof: every artifact boots under real Xen before it is called finished.

docs/explanation/proof.md says how.
"""
