"""Places on other machines that files are put to and read from."""
