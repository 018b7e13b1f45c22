"""Real power cuts: a disk that forgets every write not flushed, under the box and under its peers."""
