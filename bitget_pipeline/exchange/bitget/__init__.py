"""Bitget, generation V2 ("classic"): its words on the wire, and the way from them to ours."""
