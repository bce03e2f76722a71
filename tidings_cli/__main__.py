"""The console script, also as `python -m tidings_cli`."""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["health"]:
        from tidings_cli import health

        sys.exit(health.main(sys.argv[2:]))
    from tidings_cli.app import app

    app()


if __name__ == "__main__":
    main()
