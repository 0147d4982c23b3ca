"""The tests; one by itself: python -m tests.norms.batch_test."""
