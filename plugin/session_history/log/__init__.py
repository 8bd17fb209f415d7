"""The log of a session: append with retry, windows and pages, what is cached, leases."""
