"""Turns: their draft, their life, and the recorder that drives one."""
