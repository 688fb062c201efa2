"""How diskimage-builder is run: without sudo, loop devices or 700 forks."""
