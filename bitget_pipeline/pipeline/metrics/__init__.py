"""What Prometheus reads: names and meanings, samples made of what the live run and the stores say, and who asks them."""
