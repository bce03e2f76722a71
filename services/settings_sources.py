"""Where settings come from: files that variables name, and `tidings.toml`.

A variable's value can be read by whoever may look at the process or at the container that it runs in, so secrets come
as files: `TIDINGS_NATS_URL_FILE=/run/secrets/nats_url` stands for `TIDINGS_NATS_URL`, whatever the setting.
"""

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource, SettingsError

_SUFFIX = "_FILE"


class FilesNamedByVariables(PydanticBaseSettingsSource):
    """The content of the file that `PREFIX_NAME_FILE` names, as if `PREFIX_NAME` had it.

    Line breaks at the end of the file do not count. A setting that is called `NAME_FILE` itself keeps its variable.

    Raises:
        ValueError: both are given, or the file cannot be read as text.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  # as declared by pydantic-settings
        """See PydanticBaseSettingsSource."""
        variable = f"{self.config['env_prefix']}{field_name}".upper()
        given = {name.upper(): value for name, value in os.environ.items()}
        path = given.get(variable + _SUFFIX)
        if path is None or f"{field_name}{_SUFFIX}".lower() in self.settings_cls.model_fields:
            return None, field_name, False
        if variable in given:
            raise ValueError(f"{variable} and {variable}{_SUFFIX} are both set: remove one of them")
        return _content(variable, path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values found, by field."""
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, is_complex = self.get_field_value(field, name)
            if value is None:
                continue
            try:
                found[name] = self.prepare_field_value(name, field, value, is_complex)
            except ValueError as fault:
                raise SettingsError(f'error parsing value for field "{name}"') from fault
        return found


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{variable}{_SUFFIX} names {path}, which cannot be read: {reason}") from None


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
