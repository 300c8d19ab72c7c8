"""What the benchmarks against TRL share. Not a benchmark: `make bench` starts only the files beside this folder."""
