"""Fuzzers: programs that search for unexpected inputs. Bounded runs are tests (`test_threat_fuzzing`)."""
