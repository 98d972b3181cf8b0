"""How often somebody may call: limits per principal and per address."""
