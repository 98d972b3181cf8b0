"""What the process hears of the cluster, and what the cluster hears of it: parse, enqueue, nothing else."""
