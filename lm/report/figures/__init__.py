"""The figures of a study, a function for each: it draws rows or the analysis into one file."""
