"""The console script `tidings`.

- `app`            commands and their options; imports the others only when a command runs, so that `--help` is quick
- `pubsub`         `pub` and `sub`: a WebSocket client of a running gateway
- `gateways`       connections to running gateways, for `pubsub` and `verify`
- `credentials`    development tokens, and keys for the server API
- `verify`         proof of delivery on a running deployment, or from a recorded history
- `check`          the configuration and everything it names, each tried once, by `checks`
- `backup`         the streams as files, and back; `backup_redis` the metrics data in Redis
- `streams`        the streams in NATS against the settings
- `health`         the health of this machine's process; `__main__` runs it without the others, whose imports cost five
                   times its own
- `secret_files`   passwords and keys of a deployment; `certificates` makes those
- `configuration`  the effective settings, and the reference page made from their declaration
- `generate`       files written from declarations: types of both clients, pages of the docs
- `local`          `tidings up`: real brokers as child processes, and their supervisor
"""


class CommandFailed(RuntimeError):
    """A command cannot do its work: exit code 1. The message gives the reason and the remedy."""
