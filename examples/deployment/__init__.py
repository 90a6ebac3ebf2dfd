"""A deployment of Flower with private rounds; see README.md."""
