"""The commands. `main.py` finds them by name; one file holds one group of them."""
