"""Secure aggregation: a server learns the sum of integer vectors modulo 2^b and nothing else."""
