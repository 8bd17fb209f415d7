"""Agent runtimes that session history plugs into, a module each. Using one needs the runtime."""
