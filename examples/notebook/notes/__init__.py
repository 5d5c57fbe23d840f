"""Notes with an attachment each."""
