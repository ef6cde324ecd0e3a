"""Before a run: what it will take, and whether this machine is in order."""
