"""Examples: each runs from a clone by `python -m examples.NAME`, and small in the tests."""
