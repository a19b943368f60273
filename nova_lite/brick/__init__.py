"""os-brick's place: this host's connector properties and its end of a connection."""
