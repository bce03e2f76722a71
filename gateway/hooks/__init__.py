"""The application in the loop: what your own backend decides while a client waits.

`messages` are the requests and answers, `http_client` and `caller` ask, `cache` remembers answers, and `hooks` is what the
gateway's parts call. Nothing here is loaded where TIDINGS_HOOKS is empty.
"""
