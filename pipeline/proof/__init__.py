"""Proof: every artifact boots under real Xen before it is called finished; see docs/proof.md."""
