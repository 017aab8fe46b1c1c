"""Everything on one machine: embedded PostgreSQL, the processes, a CoinGecko stand-in and the `coins` command."""
