"""The loops that only a leader runs: fires, placement, node watch, autopilot, retention. Decisions are in rules/, records in ledger/."""
