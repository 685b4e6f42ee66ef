"""Random hostile calls of every public function: each gives a right answer, or an error that names the argument."""
