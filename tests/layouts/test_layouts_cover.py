"""What `make test` tries of the layouts: each of them with a family, and each family on several."""

from layouts.cases import CASES
from layouts.table import COVER, LAYOUTS


def test_every_layout_has_a_family_and_every_family_three_layouts():
    assert set(COVER) == set(LAYOUTS)
    chosen = list(COVER.values())
    assert set(chosen) <= set(CASES)
    assert all(chosen.count(family) >= 3 for family in ("decoder", "prefix_lm", "encoder_decoder", "encoder"))
