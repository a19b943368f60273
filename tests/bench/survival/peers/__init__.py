"""One module for each library: `python -m tests.bench.survival.peers.<name> client|server <Job as JSON>`."""
