"""The market layer: rules that hold for every input."""
