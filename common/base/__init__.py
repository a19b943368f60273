"""Words everybody shares: errors, ids, time, the request context. No I/O, no asyncio, no logging."""
