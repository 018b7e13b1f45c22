"""Fuzzing of every parser that meets outside bytes."""
