"""Training side: torch is allowed here and nowhere else. Needs `requirements/train.txt`."""
