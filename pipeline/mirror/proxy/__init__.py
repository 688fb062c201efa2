"""The caching proxy that we run: approx or apt-cacher-ng, with a cache of its own."""
