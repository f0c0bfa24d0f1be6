"""Job definitions: model, YAML and Python loaders, schedules (cron, time zones), JSON Schema.

Read jobs.py first: the job as the ledger keeps it. No clock is read here: times are arguments.
"""
