"""One node of a self-hosted content delivery network for artifacts."""

__version__ = "0.1.0"
