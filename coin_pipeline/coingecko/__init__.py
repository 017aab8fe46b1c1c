"""CoinGecko over HTTP, within its rate limit. Plain Python: nothing here knows Dagster."""
