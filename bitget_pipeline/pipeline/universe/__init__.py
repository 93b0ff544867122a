"""What exists and what is collected of it: discovery, selection, and who stands in for whom."""
