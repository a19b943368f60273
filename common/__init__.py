"""What both services stand on. It exports nothing here: the framework's public face is `common.rpc`."""
