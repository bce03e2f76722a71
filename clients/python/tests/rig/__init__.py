"""What the client's tests stand on: a clock, servers without a network, and real ones; the runners of scenarios."""
