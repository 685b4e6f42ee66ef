"""What an initialisation does to the state that is used."""
