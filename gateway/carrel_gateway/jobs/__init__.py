"""Work that nobody waits for: stored before it is done, by whichever gateway is free, and again after a fault."""
