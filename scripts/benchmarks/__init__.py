"""Sections of scripts/benchmark.py: each has OPTIONS with defaults, those of --quick, and run(args) -> JSON."""
