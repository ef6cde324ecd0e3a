"""The suites that ship: a folder each, with ``suite.yaml`` and one card a task."""
