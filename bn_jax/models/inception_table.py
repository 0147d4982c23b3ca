"""Lists the ten inception modules of Figure 5 of Ioffe and Szegedy (2015).

A separate file, to compare with the paper's table line by line. Where the table
is ambiguous, these are our choices:

  * The branches of mixed_4c and mixed_4d sum up to 608 channels; the table says
    576. `pool_projection` of both is 128, as printed (608), or 96 (576).
  * 28 and 14 pixels, printed as the outputs of 3c and 4e, are their inputs.
  * The table does not give the paper's 13.6 million parameters. With 1000
    classes it gives 11,285,224 (128) or 11,194,984 (96); 11,278,528 and
    11,188,288 with the separable first layer.
"""

from typing import NamedTuple


class Row(NamedTuple):
  """A module of Figure 5, in the columns of that table; 0: no such branch."""

  b1x1: int
  reduce_3x3: int
  b3x3: int
  reduce_double: int
  double: int
  pool: str
  projection: int

  @property
  def stride(self) -> int:
    """Returns 2 for a pool without a projection, else 1."""
    return 1 if self.projection else 2


TABLE = {
  'mixed_3a': Row(64, 64, 64, 64, 96, 'average', 32),
  'mixed_3b': Row(64, 64, 96, 64, 96, 'average', 64),
  'mixed_3c': Row(0, 128, 160, 64, 96, 'max', 0),
  'mixed_4a': Row(224, 64, 96, 96, 128, 'average', 128),
  'mixed_4b': Row(192, 96, 128, 96, 128, 'average', 128),
  'mixed_4c': Row(160, 128, 160, 128, 160, 'average', 128),
  'mixed_4d': Row(96, 128, 192, 160, 192, 'average', 128),
  'mixed_4e': Row(0, 128, 192, 192, 256, 'max', 0),
  'mixed_5a': Row(352, 192, 320, 160, 224, 'average', 128),
  'mixed_5b': Row(352, 192, 320, 192, 224, 'max', 128),
}
PROJECTIONS = (128, 96)  # the choices for mixed_4c and mixed_4d
MODULES = tuple(TABLE)
