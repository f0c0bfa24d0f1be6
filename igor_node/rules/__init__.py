"""Every decision of Igor as a pure function: values in, a value that says what to do (and why) out. No clock, no I/O, no await.

The leader proposes by a rule and the ledger's apply checks by the same rule; it is written once, here. Read states.py first.
"""
