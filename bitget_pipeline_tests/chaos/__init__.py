"""Long tests that kill processes, again and again; `make chaos` runs them. Each file says how to run it alone."""
