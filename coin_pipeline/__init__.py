"""Looks staged coin ids up at CoinGecko and materializes which exchanges list them."""
