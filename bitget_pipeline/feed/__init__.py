"""The websocket side: what a connection does next (pure), and the socket that does it."""
