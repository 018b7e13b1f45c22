"""tools/bench decoder: tokens per second of ours and of every peer, taken in turns, and the machine's limit."""
