"""Commands of `pvc lab`: studies of the method at small scale."""
