"""Commands of clients: what a client may do, as a core without I/O and without a clock."""
