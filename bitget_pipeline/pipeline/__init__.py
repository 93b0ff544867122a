"""The walks: discovery and selection, history, live ingest, its flush and its repair, and the health of it all."""
