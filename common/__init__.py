"""The ground: rows, conversations, files, digests, statistics. No words of the domain."""
