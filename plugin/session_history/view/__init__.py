"""The view of a log: pure functions from entries to what a model sees."""
