"""A server that speaks CoinGecko's HTTP, for demos and tests; the pipeline cannot tell the difference."""
