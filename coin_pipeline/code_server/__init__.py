"""Serve the code location to Dagster, start its runs, and see that neither can hang the rest."""

import gc

# In the server and in what runs are forked from: looking for garbage among the modules of Dagster while they are
# imported takes a sixth of a second.
gc.set_threshold(100_000)
