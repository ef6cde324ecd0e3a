"""Worker processes for the heavy work: started quickly, monitored, and ended at their limits."""
