"""Run folders read: predictions -> R -> metrics, comparisons, kinds of loss. No torch."""
