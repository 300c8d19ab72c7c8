"""The study behind docs/methods.md and docs/replication.md: jobs, what they measure, and what is made of it."""
