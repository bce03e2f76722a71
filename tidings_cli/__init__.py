"""The console script `tidings`.

- `app`            the commands and their options; imports the others only when a command runs, so that
                   `--help` is quick
- `pubsub`         `pub` and `sub`: a WebSocket client of a running gateway
- `token`          a development token
- `verify`         checks delivery on a running deployment, or a recorded history
- `check`          configuration and all that it names, each tried once, by `checks`
- `backup`         the streams as files, and back
- `health`         whether the process on this machine lives; `main` takes it past the others, whose imports cost
                   five times what it does
- `secret_files`   the passwords and keys of a deployment; `certificates` makes those
- `configuration`  the effective settings, and the reference page made from their declaration
- `generate`       what is written from declarations: types of both clients, and pages of the docs
- `local`          `tidings up`: real brokers as child processes, and their supervisor
"""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["health"]:
        from tidings_cli import health

        sys.exit(health.main(sys.argv[2:]))
    from tidings_cli.app import app

    app()
