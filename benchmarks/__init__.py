"""The project's own benchmark: `python -m benchmarks`, or `make bench`. See docs/benchmarks.md."""
