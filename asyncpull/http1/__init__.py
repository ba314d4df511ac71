"""HTTP/1.1 as a client speaks it (RFC 9112): heads, bodies, connections, and a pool of them. No policy is in here."""
