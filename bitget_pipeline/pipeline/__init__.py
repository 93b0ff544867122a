"""The walks, one folder each: the universe, history, the live run, what goes beside it, and the watch over it all."""
