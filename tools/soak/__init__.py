"""Hours of steady work, and what grew meanwhile."""
