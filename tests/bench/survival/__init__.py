"""What callers see when a broker or a server fails under them; `python -m tests.bench.survival --help`."""
