"""Speed of backup and restore."""
