"""Whether there is a connection, and when there is the next: a table of states, and what carries it out.

Everything but `connection.py` is pure.
"""
