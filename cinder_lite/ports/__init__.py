"""What the flows need of the outside: a place that keeps volumes, and a target that exports them."""
