"""The figures of a study, one function each: an axes-filling view of the rows and of the analysis."""
