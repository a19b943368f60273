"""Nova's processes: endpoints that check and start a flow, and the place where everything meets."""
