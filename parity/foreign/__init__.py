"""The proof of a pair that is a user's: two processes, two questions, one verdict."""
