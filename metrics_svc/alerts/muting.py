"""All that keeps an alert from being notified: silences, maintenance windows, inhibition."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from metrics_svc.alerts.inhibition import Inhibition, inhibiting
from metrics_svc.alerts.silences import silencing
from metrics_svc.alerts.windows import muting
from services.wire.alerting import Window
from services.wire.records import UNSET, Alert
from services.wire.rpc import Silence


@dataclass(frozen=True, slots=True)
class Muted:
    """Ids of what mutes one alert; all empty: nothing does."""

    silences: list[str]
    windows: list[str]
    inhibitors: list[str]

    def __bool__(self) -> bool:
        return bool(self.silences or self.windows or self.inhibitors)


@dataclass(frozen=True, slots=True)
class Muting:
    """What mutes now. `firing` are the active alerts, which may inhibit others."""

    silences: Sequence[Silence]
    windows: Sequence[Window]
    inhibitions: Sequence[Inhibition]
    firing: Sequence[Alert]

    def of(self, alert: Alert, now: int) -> Muted:
        """Return what mutes an alert at `now` (ms)."""
        return Muted(
            silencing(self.silences, alert, now),
            muting(self.windows, alert, now),
            inhibiting(self.inhibitions, alert, self.firing),
        )

    def shown(self, alert: Alert, now: int) -> Alert:
        """Return the alert with what mutes it, as the API answers it."""
        muted = self.of(alert, now)
        return msgspec.structs.replace(
            alert,
            silenced_by=muted.silences or UNSET,
            muted_by=muted.windows or UNSET,
            inhibited_by=muted.inhibitors or UNSET,
        )
