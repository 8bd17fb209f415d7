"""Decorated handlers: a turn around a function of the application."""
