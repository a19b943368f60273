"""One module for each library: `python -m tests.bench.rpc_peers.peers.<name> client|server <transport url>`."""
