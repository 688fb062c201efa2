"""`doit report`: one page about a built guest, for people who were not there."""
