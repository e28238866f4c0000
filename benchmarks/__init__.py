"""What cr3 costs in time: see `python -m benchmarks --help`."""
