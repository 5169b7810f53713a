"""Every crash point of a small job: it is broken off before, after or at each, and another process takes over."""
