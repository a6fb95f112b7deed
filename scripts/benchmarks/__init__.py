"""Sections of scripts/benchmark.py: each has OPTIONS and QUICK (option -> default) and run(args) -> a dict for JSON."""
