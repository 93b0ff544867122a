"""Our own words for the market: pure values and rules, no input or output."""
