"""The content of an entry: messages, values, records and summaries. Pure functions."""
