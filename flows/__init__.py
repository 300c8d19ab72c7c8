"""When it happens: configuration, stages with reuse and resume, Prefect flows, and the command line.

The only package that imports prefect, and only inside commands and flow modules: importing `flows` or
`flows.cli` imports neither torch nor prefect.
"""
