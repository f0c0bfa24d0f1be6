"""What every node does for runs: receive assignments, start and re-attach wrappers, report, ship logs.
"""
