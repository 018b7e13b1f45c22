"""Faults on purpose, each with the outcome that is promised."""
