"""Engine x task -> graded predictions, and how far a policy moved from the base."""
