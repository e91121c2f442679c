"""Networks, whose parts are named as in the papers."""
