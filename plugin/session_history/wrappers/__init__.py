"""Wrappers: a provider around a provider."""
