"""Both command lines: `igor` (a client of the API) and `igor-node`.

Read igor.py first (which commands there are), then command.py (what all of them share), client.py (which node is asked, what is sent again) and
target.py (where nodes and token come from). The commands stand by what they are about: define, look, act, see, operate; follow.py waits and reads
logs. Nothing here imports a server part, but for `node.py` when it starts one.
"""
