"""From records to figures and a page; imports no JAX."""
