"""What an entry holds: messages, values, records and summaries. Pure functions."""
