"""Curation: a pipeline of named steps that repair, filter and deduplicate documents, each with a ledger of what it did.

A step is a frozen dataclass in a registry (lm.data.curation.steps). Most look at one document; those that compare documents with one
another (lm.data.curation.comparing) first write a sketch of each to disk. `lm.data.curate` is the command.
"""
