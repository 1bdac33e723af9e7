"""The command line: one module a command. Start-up imports only what the command needs."""
