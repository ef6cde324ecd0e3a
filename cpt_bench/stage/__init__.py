"""One stage of the sequence: what a trainer is given, and what it returns."""
