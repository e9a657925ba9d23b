"""The kernel at infinite width read from a network's traced program."""
