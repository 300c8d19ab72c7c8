"""Who takes part in judge_throughput.py. Not a benchmark: `make bench` starts only the files beside this folder."""
