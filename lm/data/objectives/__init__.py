"""Objectives: numpy transforms from documents to the rows of one Batch. docs/objectives.md says how to add one."""
