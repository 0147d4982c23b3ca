"""Studies of what can take the place of BN in a network, a network a file."""
