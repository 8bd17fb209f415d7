"""Agent runtimes that session history plugs into, a module each. Importing one needs the runtime."""
