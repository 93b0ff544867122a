"""Looking after it all: health, alerts, and who delivers while the exchange is dark."""
