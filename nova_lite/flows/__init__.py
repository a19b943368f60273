"""Nova's sagas, one a file: their steps, what undoes each, and what they act on."""
