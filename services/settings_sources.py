"""Where settings come from besides `tidings.toml`: variables, and files that variables name.

A variable's value can be read by whoever may look at the process or at the container that it runs in, so secrets come
as files: `TIDINGS_NATS_URL_FILE=/run/secrets/nats_url` stands for `TIDINGS_NATS_URL`, whatever the setting.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import EnvSettingsSource

_SUFFIX = "_FILE"


class EnvironmentOrFiles(EnvSettingsSource):
    """`PREFIX_NAME` as it stands, or the content of the file that `PREFIX_NAME_FILE` names.

    Line breaks at the end of the file do not count. A setting that is called `NAME_FILE` itself keeps its variable.

    Raises:
        ValueError: both are given, or the file cannot be read as text.
    """

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = dict(super()._load_env_vars())
        for field in self.settings_cls.model_fields:
            # As pydantic-settings spells them where names are not case-sensitive.
            name = f"{self.env_prefix}{field}".lower()
            path = found.get(name + _SUFFIX.lower())
            if path is None or f"{field}{_SUFFIX}".lower() in self.settings_cls.model_fields:
                continue
            variable = name.upper()
            if name in found:
                raise ValueError(f"{variable} and {variable}{_SUFFIX} are both set: take one of them away")
            found[name] = _content(variable, path)
        return found


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{variable}{_SUFFIX} names {path}, which cannot be read: {reason}") from None
