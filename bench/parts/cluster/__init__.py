"""Ray clusters on one machine, and what a search did on them."""
