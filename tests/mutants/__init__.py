"""Providers with one bug each, planted to see that the contract suite catches it: ``make mutants``."""
