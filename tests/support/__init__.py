"""What several test folders share: requirements of the machine, servers, deadlines."""
