"""How to add one's own, each a script that registers it and calls the command line with it."""
