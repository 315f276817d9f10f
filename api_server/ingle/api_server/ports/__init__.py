"""What the domain needs from the world, as Protocols. Adapters implement them; main wires them."""
