"""Where settings come from: files that variables name, and `tidings.toml`.

Anyone who may inspect the process or its container can read its variables. So secrets come as files:
`TIDINGS_NATS_URL_FILE=/run/secrets/nats_url` stands for `TIDINGS_NATS_URL`, whatever the setting. A leaf.
"""

import os
from pathlib import Path

from pydantic_settings import BaseSettings, EnvSettingsSource


class FilesNamedByVariables(EnvSettingsSource):
    """The content of the file that `PREFIX_NAME_FILE` names, as if `PREFIX_NAME` had it.

    Line breaks at the end of the file do not count. A setting that is called `NAME_FILE` itself keeps its variable.

    Raises:
        ValueError: both are given, or the file cannot be read as text.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        given, self.env_vars = self.env_vars, {}  # names in lower case
        for field in settings_cls.model_fields:
            name = f"{self.env_prefix}{field}".lower()
            path = given.get(f"{name}_file")
            if path is None:
                continue
            if name in given:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set: remove one of them")
            self.env_vars[name] = _content(name.upper(), path)


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{variable}_FILE names {path}, which cannot be read: {reason}") from None


def config_file() -> Path | None:
    """Return the configuration file in force.

    Raises:
        FileNotFoundError: `TIDINGS_CONFIG` names a file that does not exist.
    """
    named = os.environ.get("TIDINGS_CONFIG")
    path = Path(named or "tidings.toml")
    if path.is_file():
        return path
    if named:
        raise FileNotFoundError(f"TIDINGS_CONFIG names {named}, which does not exist")
    return None
