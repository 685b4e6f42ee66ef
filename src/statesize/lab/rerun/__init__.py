"""A result on disk, repeated from what it says of itself, and compared. Read `result`, then `comparing`."""
