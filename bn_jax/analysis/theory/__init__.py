"""Computes both sides of each statement of the papers' theory."""

from bn_jax.analysis.theory.one_layer import (
  Point,
  Unit,
  hessian_times,
  normalized,
  point,
  through,
)
from bn_jax.analysis.theory.sides import AtMost, Conditional, Equality, Ray
from bn_jax.analysis.theory.statements import (
  algorithm_1,
  fact_c1,
  fact_c2,
  hessian_identity,
  largest_singular_value,
  lemma_4_5,
  observation_4_3,
  scale_invariance,
  theorem_4_1,
  theorem_4_1_bound,
  theorem_4_2_line_1,
  theorem_4_2_line_2,
  theorem_4_4,
  theorem_4_4_pointwise,
)

__all__ = [
  'AtMost',
  'Conditional',
  'Equality',
  'Point',
  'Ray',
  'Unit',
  'algorithm_1',
  'fact_c1',
  'fact_c2',
  'hessian_identity',
  'hessian_times',
  'largest_singular_value',
  'lemma_4_5',
  'normalized',
  'observation_4_3',
  'point',
  'scale_invariance',
  'theorem_4_1',
  'theorem_4_1_bound',
  'theorem_4_2_line_1',
  'theorem_4_2_line_2',
  'theorem_4_4',
  'theorem_4_4_pointwise',
  'through',
]
