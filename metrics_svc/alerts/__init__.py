"""From rows to alerts, without I/O and without a clock.

- `rules`       what a rule says: thresholds, durations, what to do without data; the built-in rules
- `rules_file`  rules from a TOML file, read again when it changes
- `rulebook`    the rules in force: those of the file and those given by API
- `states`      the states of an alert and every transition between them, as a table
- `judge`       one rule and one value: which input of the table is it, and what does the alert become
- `engine`      all rules over one second: events, states to keep, lines of the alert log
- `matching`    which alerts a list of matchers means
- `windows`, `inhibition`   what keeps alerts from being notified, beside silences; `muting` is all of it
"""
