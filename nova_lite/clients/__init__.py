"""Nova as a client of others."""
