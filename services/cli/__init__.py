"""The console script `tidings`.

- `app`            the commands and their options; imports the others only when a command runs, so that
                   `--help` is quick
- `talk`           `pub` and `sub`: a WebSocket client of a running gateway
- `token`          a development token
- `verify`         prove delivery on a running deployment, or check a history
- `check`          configuration and servers, each tried once
- `configuration`  the effective settings, and the reference page made from their declaration
- `reference`      other pages made from declarations: metrics
- `code_tables`    the tables of codes within a page that is otherwise written by hand
"""


def main() -> None:
    """Run the command line."""
    from services.cli.app import app

    app()
