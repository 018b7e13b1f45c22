"""tools/bench encoder: our backends against their own runtimes on the very same file, in turns."""
