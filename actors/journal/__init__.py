"""The durable record: alerts, executions, steps and events in one SQLite file with one writer."""
