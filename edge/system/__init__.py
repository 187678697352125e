"""The machine around the recognizer: files, caches, consoles, child processes, versions. Imports no other folder."""
