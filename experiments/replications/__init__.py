"""Published analyses by this library: `python -m experiments.replications`. One module per paper, `run(data)` -> `Replication`."""
