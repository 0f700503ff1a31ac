"""Published scaling-law analyses, replicated: `python -m experiments.replications`. Each paper is a module whose `run(data)` checks it."""
