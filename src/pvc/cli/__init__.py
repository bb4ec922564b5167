"""The command line: `pvc`. One file per command; torch is imported only when a model is really needed."""
