"""The specifications of cinder's ports, and what runs them against any backend: `lite driver certify`."""
