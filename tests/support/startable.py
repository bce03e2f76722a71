"""What is started by `with` and stopped at its end."""

from typing import Self


class Startable:
    """Several servers as one thing: where only some of them came up, those are stopped again."""

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
