"""`python -m tidings_cli`: the console script where none is installed."""

from tidings_cli import main

if __name__ == "__main__":
    main()
