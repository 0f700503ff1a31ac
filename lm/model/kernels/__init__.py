"""Forms of attention that hold no [T, S] weights, and which of them serves a mask."""
