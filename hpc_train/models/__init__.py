"""Networks, with the papers' names for their parts."""
