"""What is no longer needed is deleted: old partitions, what Redis has done with, spill files; and the ledger is told."""
