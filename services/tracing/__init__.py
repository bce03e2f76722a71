"""Traces by OpenTelemetry: an option, and nothing at all while it is off.

- `exporting`  from settings to a `Traces`, or None where `TIDINGS_TRACES_ENDPOINT` is empty
- `spans`      what is measured, under which name, and how its context travels (W3C Trace Context)
- `bus`        a bus that carries that context in its headers

Only `exporting` may be imported where traces may be off: the others need the optional part `tracing`. Being off costs
nothing because nothing asks whether it is on: a process that traces is put together from other classes.
"""
