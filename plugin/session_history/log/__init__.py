"""The log of a session: append with retry, windows and pages, the cache, leases."""
