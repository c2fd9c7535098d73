"""The client side of Spread: its protocol without I/O, and clients on asyncio and on plain sockets."""
