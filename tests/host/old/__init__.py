"""An archive of etch and lenny: what is in it, how it is made, where it is served."""
