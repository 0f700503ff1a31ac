"""The verbs of `python -m lm.scaling`. Each module has HELP, arguments(parser), and run(args), which returns the exit status."""
