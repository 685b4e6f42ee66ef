"""What a regulariser does to the state that is used."""
