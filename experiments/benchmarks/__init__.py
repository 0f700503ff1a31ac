"""Benchmarks against other programs, measured beside them: `python -m experiments benchmarks NAME [--json]`. README.md lists them."""
