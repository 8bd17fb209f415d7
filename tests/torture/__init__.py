"""``make torture``: processes and servers are killed at any moment, and what was acknowledged has to be there."""
