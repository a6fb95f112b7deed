"""Sections of scripts/benchmark.py: each module has add_arguments(parser) and run(args) -> a dict that fits into JSON."""
