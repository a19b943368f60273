"""State machines and sagas as data, and the one pure function that drives a saga. No I/O."""
