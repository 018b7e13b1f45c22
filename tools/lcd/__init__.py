"""The status panel on a terminal."""
