"""The HTTP side: which page comes next (pure), and the client that fetches it within the shared rate budget."""
