"""The load: raw sockets and one epoll loop, so that a Python load can outrun the servers it measures.

Deliveries are counted by a byte that occurs once in every message and nowhere else, so no frame has to be parsed. The
difference to the expected number is reported as lost.
"""
