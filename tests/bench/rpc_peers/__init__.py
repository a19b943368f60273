"""Our RPC beside other libraries', on one broker; `python -m tests.bench.rpc_peers --help`."""
