"""Taking each guard out once, to see that the tests named for its threat notice.

- `table`     all guards, from `access`, `hostile_input`, `servers` and `delivery`: where each stands, what is left without it, and
              which tests must fail then
- `guard`     what a guard is
- `__main__`  the run: `python -m tests.guards` (or `make guards`), a copy of the sources for each guard

A test that passes without the guard it is named for watches over nothing.
"""
