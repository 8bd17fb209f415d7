"""Turns: what is said in them, and when it is stored."""
