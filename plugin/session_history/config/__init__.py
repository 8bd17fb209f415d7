"""The runtime configuration, and the discovery of plugins."""
