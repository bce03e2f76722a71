"""The connection: a state machine, and `connection.py`, which carries out its actions.

Everything but `connection.py` is pure.
"""
