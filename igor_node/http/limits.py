"""Every bound of the HTTP side, with its unit and its reason. Past one of these a client gets a 4xx or its connection is closed."""

from __future__ import annotations

MIB = 1024 * 1024

BODY_LIMIT_BYTES = 4 * MIB
PUSH_BODY_LIMIT_BYTES = 64 * MIB
HEADERS_LIMIT_BYTES = 16 * 1024
HEADER_LINES = 100
LINE_LIMIT_BYTES = 8190  # one header, or the request line; two of them fit into HEADERS_LIMIT_BYTES
JSON_DEPTH = 100  # the deepest definition is allowed 50; deeper is an attack on whoever walks it
QUERY_LIMIT = 1_000  # largest `limit=`
QUERY_DEFAULT = 100  # `limit=` where none is given

FIRST_BYTES_S = 10.0  # until a new connection has said what it is
HEAD_S = 10.0  # until a request's head is whole
BODY_S = 75.0  # until a body is whole
IDLE_S = 75.0  # a kept-alive connection without a request
LINGER_S = 2.0  # how long the rest of a refused body is read, so that the client sees the refusal

CONNECTIONS = 4_000  # one open file each; what comes past them is closed at once
BACKLOG = 1_024
IN_FLIGHT = 1_000  # requests being answered at once, streams not counted; more wait in the clients

WRITE_WITHIN_S = 4.0  # a failover takes 2 s; CONTRACT promises a 503 within 5 s
PUSH_WITHIN_S = 30.0  # a push that goes in parts: up to 70 of them, each an entry of 1 MiB
NO_QUORUM_WITHIN_S = 0.5  # where no leader was heard for longer than WRITE_WITHIN_S nobody waits for one
INDEX_WITHIN_S = 3.0  # how long a read waits for the `Igor-Index` it was sent
BARRIER_WITHIN_S = 3.0
CONNECT_S = 1.0  # to another node
PEER_READ_S = 10.0  # a whole answer of another node to a forwarded read
PEER_WRITE_S = 60.0  # and to a write: a push of 64 MiB is checked while we wait

SESSION_S = 12 * 3600  # a working day; then `igor ui` again
LINK_S = 300  # CONTRACT: a link that logs in once
LINKS = 1_000  # waiting at once
TOKENS_CACHED = 1_000

EVENT_FRAMES_KEPT = 2_000  # in memory, for readers that come back at once; older ones are read from the ledger
EVENT_FRAMES_QUEUED = 1_000  # a reader further behind is disconnected
EVENT_READERS = 500
EVENT_BATCH = 500
PING_S = 5.0  # a beat on quiet streams, so that both sides find dead ones; the page calls a stream stale after 12 s

LOG_CHUNK_LINES = 1_000
LOG_FOLLOW_WAIT_S = 0.2
UPCOMING_LIMIT = 1_000
SCHEDULE_LIMIT = 1_000
