"""A run's result for people: on the terminal, as report.html, and as the Markdown of Prefect artifacts."""
