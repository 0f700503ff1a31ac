"""Objectives: numpy transforms from documents to the rows of one Batch. `base` says what an objective is and how to add one."""
