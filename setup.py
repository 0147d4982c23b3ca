"""Ships configs/ inside the package; all else is said by pyproject.toml."""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['bn_jax', 'bn_jax.*']),
    *(
      f'bn_jax.{name}'
      for name in setuptools.find_packages(include=['configs', 'configs.*'])
    ),
  ],
  package_dir={'bn_jax.configs': 'configs'},
)
