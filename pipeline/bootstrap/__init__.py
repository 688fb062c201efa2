"""A base tree made in parallel: apt resolves, every core unpacks, one dpkg configures.

`resolution` asks apt what belongs to the tree; `bootstrap` hands that over as an `Order` to a
process of its own (`inside`), which fetches, unpacks (`archive`, `unpacking`), writes dpkg's
database (`database`), runs the maintainer scripts (`scripts`), cleans up (`skeleton`) and packs.
docs/explanation/bootstrap.md says how the tree is known to be the one that mmdebstrap makes.
"""
