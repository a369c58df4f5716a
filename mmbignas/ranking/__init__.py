"""Whether the ranking of subnets by a supernet can be trusted."""
