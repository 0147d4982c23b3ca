"""The defaults of every key, which stand in `bn_jax.config.defaults`."""

from bn_jax.config.defaults import check_size, get_config, runs, select

__all__ = ['check_size', 'get_config', 'runs', 'select']
