"""Control of connections on any gateway by the server API: memberships, a list, details, disconnecting.

A request reaches one gateway, which asks all of them (`peers`). Each answers for its own connections.
"""
