"""What the benchmarks share: sides that take turns, their data, and the table in docs/benchmarks.md."""
