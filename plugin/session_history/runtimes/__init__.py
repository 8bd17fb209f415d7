"""Agent runtimes, a module or folder each. Using one requires the runtime."""
