"""Both command lines: `igor` (a client of the API) and `igor-node`."""
