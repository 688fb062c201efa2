"""Many machines that build together, by Dask: nothing of it is imported by an ordinary build."""
