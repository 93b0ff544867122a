"""`bitget-pipeline up`: everything an instance consists of, started, watched, restarted and stopped as one."""
