"""HTTP/1.1 as a client speaks it (RFC 9112): heads, bodies, connections, a pool of them, and what goes wrong."""
