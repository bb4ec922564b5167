"""Training data: files and tasks, their mixture in a stage, and batches of them."""
