"""What people make to be let in by: API keys, and tickets for WebSockets. Who presents one is `identity`'s."""
