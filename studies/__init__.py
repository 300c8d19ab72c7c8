"""Studies: questions that take hours, each asked once and written up in docs/."""
