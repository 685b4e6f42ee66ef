"""The same profile and the same study again, with other threads and in processes."""
