"""Makes figures and a page of records; imports no JAX."""
