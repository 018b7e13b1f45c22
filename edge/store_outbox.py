"""Messages for a broker that may be away: they wait here, across restarts, in order, and never without end."""

from __future__ import annotations

from edge.store_base import StoreBase
from edge.store_rows import OutboxRow


class OutboxPart(StoreBase):
    """Written and emptied by `link`."""

    def put_out(self, topic: str, payload: str, keep: int) -> int:
        """Add a message; returns how many of the oldest were dropped because more than `keep` wait."""
        with self._db.transaction():
            self._db.insert("outbox", topic=topic, payload=payload)
            sql = (
                "DELETE FROM outbox WHERE outbox_key <= (SELECT outbox_key FROM outbox "
                "ORDER BY outbox_key DESC LIMIT 1 OFFSET ?) RETURNING 1"
            )
            return len(self._db.all(sql, keep))

    def outbox(self, limit: int = 100) -> list[OutboxRow]:
        """What waits, oldest first."""
        sql = "SELECT outbox_key, topic, payload FROM outbox ORDER BY outbox_key LIMIT ?"
        return [OutboxRow(*row) for row in self._db.all(sql, limit)]

    def sent(self, outbox_key: int) -> None:
        """The broker has acknowledged the message."""
        with self._db.transaction():
            self._db.all("DELETE FROM outbox WHERE outbox_key = ?", outbox_key)
