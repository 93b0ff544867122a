"""Deciders that keep us welcome and alive: pure, given the time and the chance; they answer with a delay or a verdict."""
