"""The exchange layer, held against recordings, worked values and whatever hypothesis thinks of."""
