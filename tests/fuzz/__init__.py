"""Programs that look for inputs nobody thought of. Bounded runs are tests (`test_threat_fuzzing`)."""
