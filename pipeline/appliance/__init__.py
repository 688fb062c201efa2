"""Appliances: guests that only make sense together, built, published, installed as one."""
