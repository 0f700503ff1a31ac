"""Loss, gradients and weights of this family on every layout."""

from layouts.table import proof

test_eight_devices_are_one = proof("prefix_lm")
