"""From rows to alerts, without I/O and without a clock.

- `rules`       conditions and the built-in rules
- `rule_store`  the rules in effect: those of the rules file and those of the API
- `states`      the states of an alert and every transition between them, as a table
- `instance`    one alert: its stored state, and its evaluation with one value
- `engine`      evaluation of all rules for one second
- `muting`      matchers, silences, maintenance windows, inhibition
"""
