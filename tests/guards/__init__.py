"""Taking each guard out once, to see that the tests named for its threat notice.

- `table`     which guard stands where, what is left without it, and which tests must fail then
- `__main__`  the run: `python -m tests.guards` (or `make guards`), a copy of the sources for each guard

A test that passes without the guard it is named for watches over nothing.
"""
