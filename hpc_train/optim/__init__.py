"""Learning-rate rules and schedules."""
