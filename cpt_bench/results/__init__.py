"""Reads run folders: predictions -> R -> metrics, comparisons, kinds of loss. No torch."""
