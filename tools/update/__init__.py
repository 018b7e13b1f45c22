"""Making signed updates and reading the receipts that come back; docs/keys.md tells who does what."""
