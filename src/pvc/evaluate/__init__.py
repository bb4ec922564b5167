"""Cost of answers: time and tokens of requests about a user's media. Called by `pvc bench`."""
